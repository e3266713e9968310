package initramfs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// Modules that the agent asks for. Ciphers come before dm-crypt, since there is no modprobe
// in the initramfs that the kernel could call for them. Each may also be built in, or be
// absent where a kernel does not have it; only dm-crypt must exist.
var (
	// needed: if one of these is there and does not load, the root cannot be opened.
	needed = []string{"xts", "ecb", "dm_crypt"}
	// wanted: drivers of the disks that QEMU offers, the file system that image writes with its
	// checksum, and AES. aes_generic and its fast siblings each suffice, and which one loads
	// depends on the processor.
	wanted = []string{
		"aes_generic", "aes", "aesni_intel",
		"virtio_pci", "virtio_blk", "virtio_scsi", "sd_mod", "nvme", "ahci",
		"crc32c_generic", "crc32c", "crc32c_intel", "ext4",
	}
	// sums are checksums that a file system may have been made with, which it asks the kernel for by names that are no modules'.
	sums = map[string][]string{"btrfs": {"xxhash_generic", "blake2b_generic", "sha256_generic", "sha256_ssse3"}}
)

// set is what a kernel's folder holds of what was asked for.
type set struct {
	modules     map[string]*module
	builtin     map[string]bool
	fileSystems []string // that the agent mounts
}

// step is a module to load.
type step struct {
	module *module
	need   bool
}

// collect reads the wanted modules and all that they depend on. An archive is walked more than
// once where a module comes before one that depends on it.
func collect(ctx context.Context, src source.Source, kernel Kernel, fileSystems []string) (*set, error) {
	if kernel.Modules == "" {
		return nil, ErrNoModules
	}
	s := &set{modules: map[string]*module{}, builtin: map[string]bool{}, fileSystems: fileSystems}
	ask := map[string]bool{}
	all := slices.Concat(needed, wanted, fileSystems)
	for _, fs := range fileSystems {
		all = append(all, sums[fs]...)
	}
	for _, name := range all {
		ask[name] = true
	}
	missing := true // there may be one that an earlier part of the walk held
	for missing {
		missing = false
		passed := map[string]bool{} // seen in this walk before it was asked for
		err := src.Walk(ctx, func(e source.Entry, content io.Reader) error {
			rest, ok := strings.CutPrefix(e.Path, kernel.Modules+"/")
			if !ok || e.Type != source.Regular {
				return nil
			}
			if rest == "modules.builtin" {
				return s.readBuiltin(content)
			}
			name := moduleName(rest)
			if name == "" || s.modules[name] != nil {
				return nil
			}
			if !ask[name] {
				passed[name] = true
				return nil
			}
			m, err := readModule(rest, content)
			if err != nil {
				return err
			}
			s.modules[name] = m
			for _, list := range [][]string{m.depends, m.pre, m.post} {
				for _, dep := range list {
					ask[dep] = true
					missing = missing || passed[dep]
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return s, nil
}

// readBuiltin reads modules.builtin: paths of modules that are part of the kernel's image.
func (s *set) readBuiltin(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if name := moduleName(lines.Text()); name != "" {
			s.builtin[name] = true
		}
	}
	return lines.Err()
}

// plan puts the modules in an order in which each comes after what it depends on.
func (s *set) plan() ([]step, error) {
	if s.modules["dm_crypt"] == nil && !s.builtin["dm_crypt"] {
		return nil, ErrNoCrypt
	}
	p := planner{set: s, at: map[string]int{}}
	for _, name := range wanted[:3] { // AES before what uses it
		if err := p.add(name, false, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range needed {
		if err := p.add(name, true, nil); err != nil {
			return nil, err
		}
	}
	for _, name := range wanted[3:] {
		if err := p.add(name, false, nil); err != nil {
			return nil, err
		}
	}
	for _, fs := range s.fileSystems {
		if s.modules[fs] == nil && !s.builtin[fs] {
			return nil, fmt.Errorf("%w: %s", ErrNoFileSystem, fs)
		}
		for _, name := range sums[fs] {
			if err := p.add(name, false, nil); err != nil {
				return nil, err
			}
		}
		if err := p.add(fs, true, nil); err != nil {
			return nil, err
		}
	}
	return p.steps, nil
}

type planner struct {
	*set
	at    map[string]int // place of a module in steps
	steps []step
}

// add appends a module after what it depends on. above are the modules that led here.
func (p *planner) add(name string, need bool, above []string) error {
	m := p.modules[name]
	if m == nil {
		return nil // built in, or not of this kernel
	}
	for _, a := range above {
		if a == name {
			return fmt.Errorf("modules depend on each other in a circle: %s", strings.Join(append(above, name), ", "))
		}
	}
	i, have := p.at[name]
	if have && (!need || p.steps[i].need) {
		return nil
	}
	above = append(above, name)
	for _, dep := range m.depends {
		if p.modules[dep] == nil && !p.builtin[dep] {
			return fmt.Errorf("%s needs the module %s, which is neither there nor built in", name, dep)
		}
		if err := p.add(dep, need, above); err != nil {
			return err
		}
	}
	if have { // its place is behind its dependencies already
		p.steps[i].need = true
		return nil
	}
	for _, dep := range m.pre {
		if err := p.soft(dep, above); err != nil {
			return err
		}
	}
	p.at[name] = len(p.steps)
	p.steps = append(p.steps, step{m, need})
	for _, dep := range m.post {
		if err := p.soft(dep, above); err != nil {
			return err
		}
	}
	return nil
}

// soft adds a module that is good to have. Such wishes may go round in a circle, where the
// module that was asked for first wins.
func (p *planner) soft(name string, above []string) error {
	for _, a := range above {
		if a == name {
			return nil
		}
	}
	return p.add(name, false, above)
}
