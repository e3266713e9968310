// Package guest says what is put into a root file system so that it runs from the encrypted disk, and goes on doing
// so after its kernel was updated. It only reads: what comes out are files to be added, and nothing in the root is run.
//
//   - /usr/lib/sealboot: the agent, and the program sealboot-guest that makes initramfs files inside the guest and
//     grows the root file system.
//   - an initramfs of ours for each kernel (package initramfs).
//   - hooks for whatever the distribution has that installs kernels: Debian's /etc/kernel, initramfs-tools, dracut,
//     kernel-install. A hook that fails fails the update, so that nobody believes in a kernel that GRUB would pass over.
//   - /etc/fstab with the root on its new device, the boot volume at /boot where the root has one, and without partitions that
//     are not on the new disk; the same for /etc/crypttab.
//     The root itself is not put there: the agent has opened it before anybody reads that table, and an entry makes
//     systemd try to close it at shutdown, and dracut ask for a passphrase.
//   - a systemd unit that grows the root to the size of its disk, where systemd is there.
//   - settings that keep cloud-init and QEMU's guest agent from doing what the host says.
package guest

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/initramfs"
)

// ErrMounted says that /etc/fstab mounts a partition that would not be on the new disk, with somebody's data on it.
var ErrMounted = errors.New("a partition that is mounted would not be on the disk")

// Places in the guest.
const (
	Folder      = "/usr/lib/sealboot"
	AgentPath   = Folder + "/sealboot-agent"
	ProgramPath = Folder + "/sealboot-guest"
	rootDevice  = "/dev/mapper/sealboot-root" // agent.RootDevice
	bootDevice  = "/dev/mapper/sealboot-boot" // agent.BootDevice
)

// Spec says what guest it is.
type Spec struct {
	Agent   []byte // the program sealboot-agent
	Program []byte // the program sealboot-guest
	// System is where the root lies on a disk image that is taken block for block, and what else is there; nil: a new
	// file system is made from a tree of files.
	System *disk.System
}

// Result is what to add, and what to tell people.
type Result struct {
	Kernels []initramfs.Kernel // newest first
	Files   []source.File
	Notes   []string
}

// Prepare looks through a root. No kernel at all gives no error, but no Kernels.
func Prepare(ctx context.Context, root source.Source, spec Spec) (*Result, error) {
	kernels, err := initramfs.Scan(ctx, root)
	if err != nil {
		return nil, err
	}
	r := &Result{Kernels: kernels}
	var mounted []string
	if spec.System != nil && spec.System.BootVolume() {
		mounted = []string{string(disk.Ext4), string(spec.System.Root.FileSystem)}
	}
	for _, kernel := range kernels {
		content, err := initramfs.Build(ctx, root, kernel, spec.Agent, mounted...)
		if err != nil {
			return nil, fmt.Errorf("make initramfs for kernel %s: %w", kernel.Version, err)
		}
		r.Files = append(r.Files, source.File{Path: initramfs.Path(kernel.Version), Mode: 0o600, Content: content})
	}
	found, err := look(ctx, root)
	if err != nil {
		return nil, err
	}
	if err := r.tables(found, spec.System); err != nil {
		return nil, err
	}
	r.Files = append(r.Files, source.File{Path: AgentPath, Mode: 0o755, Content: spec.Agent}, source.File{Path: ProgramPath, Mode: 0o755, Content: spec.Program})
	files, notes := hooksFor(found)
	r.Files, r.Notes = append(r.Files, files...), append(r.Notes, notes...)
	return r, nil
}

// tables rewrites /etc/crypttab and /etc/fstab.
func (r *Result) tables(found *facts, system *disk.System) error {
	t := &rewriter{system: system}
	crypttab := t.crypttab(found.crypttab, found.fstab)
	fstab, err := t.fstab(found.fstab)
	if err != nil {
		return err
	}
	for _, table := range []struct {
		path     string
		old, new []byte
	}{{crypttabPath, found.crypttab, crypttab}, {fstabPath, found.fstab, fstab}} {
		if string(table.old) != string(table.new) {
			r.Files = append(r.Files, source.File{Path: table.path, Mode: 0o644, Content: table.new})
		}
	}
	r.Notes = append(r.Notes, t.notes...)
	return nil
}

const (
	fstabPath    = "/etc/fstab"
	crypttabPath = "/etc/crypttab"
	maxTable     = 1 << 20
)

// facts are what a walk through the root found.
type facts struct {
	fstab, crypttab []byte
	have            map[string]bool // of marks
}

func look(ctx context.Context, root source.Source) (*facts, error) {
	found := &facts{have: map[string]bool{}}
	err := root.Walk(ctx, func(e source.Entry, content io.Reader) error {
		for _, h := range hooks {
			for _, mark := range h.marks {
				if e.Path == mark {
					found.have[mark] = true
				}
			}
		}
		table := &found.fstab
		switch e.Path {
		case crypttabPath:
			table = &found.crypttab
		case fstabPath:
		default:
			return nil
		}
		if e.Type != source.Regular || e.Size > maxTable {
			return fmt.Errorf("%s is a %v of %d bytes: it has to be a file of at most %d, to be rewritten for the encrypted disk", e.Path, e.Type, e.Size, maxTable)
		}
		var err error
		*table, err = io.ReadAll(content)
		return err
	})
	return found, err
}
