// Package initramfs makes the file that the guest's kernel unpacks before its root is there:
// the agent, the kernel modules that the agent loads, and the order to load them in. The file
// goes to /boot/sealboot/initramfs-VERSION in the encrypted root, or its boot volume, where GRUB finds it.
//
// The tree of files may be one into which packages were only unpacked: modules.dep, which
// depmod would have made, is not needed. What depends on what is read from the modules
// themselves (section .modinfo: "depends", "softdep") and modules.builtin.
//
// The archive is a "newc" cpio (Linux Documentation/driver-api/early-userspace/buffer-format)
// without compression, times, owners or numbers from outside: the same tree and agent give the same bytes.
package initramfs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// Paths within the initramfs, which the agent relies on (agent.Layout).
const (
	folder      = "sealboot"
	agentPath   = folder + "/agent"
	listPath    = folder + "/modules.list"
	modulesPath = folder + "/modules"
)

// Errors that callers tell apart.
var (
	ErrNoModules = errors.New("kernel without its modules")
	ErrNoCrypt   = errors.New("kernel without dm-crypt")
	// ErrNoFileSystem says that a kernel has no driver for what the agent has to mount.
	ErrNoFileSystem = errors.New("kernel without the file system")
	ErrAgent        = errors.New("the agent is not a static program for this machine")
)

// Path gives the place of a kernel's initramfs in the encrypted root.
func Path(version string) string { return "/boot/sealboot/initramfs-" + version }

// Build makes the initramfs of one kernel that Scan found in src. agent is the program
// sealboot-agent: a static ELF executable for x86-64. fileSystems are those that it mounts, as the kernel names them, where
// there is a boot volume: ext4 and the root's. Where none is named, ext4 comes along if the kernel has it as a module.
func Build(ctx context.Context, src source.Source, kernel Kernel, agent []byte, fileSystems ...string) ([]byte, error) {
	if err := checkAgent(agent); err != nil {
		return nil, err
	}
	set, err := collect(ctx, src, kernel, fileSystems)
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", kernel.Version, err)
	}
	plan, err := set.plan()
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", kernel.Version, err)
	}
	var out bytes.Buffer
	w := archive{w: &out}
	w.folder(folder)
	w.file(agentPath, 0o755, agent)
	w.file(listPath, 0o644, []byte(list(plan)))
	w.folder(modulesPath)
	for _, s := range plan {
		w.file(modulesPath+"/"+s.module.file(), 0o644, s.module.content)
	}
	w.end()
	return out.Bytes(), nil
}

// list is the text of modules.list: one module a line, in the order of loading, as
// "need FILE" (without it there is no root) or "try FILE" (a driver for hardware that may be
// missing, a faster cipher).
func list(plan []step) string {
	var b strings.Builder
	for _, s := range plan {
		verb := "try"
		if s.need {
			verb = "need"
		}
		fmt.Fprintf(&b, "%s %s\n", verb, s.module.file())
	}
	return b.String()
}
