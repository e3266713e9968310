package grub

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
)

// Offsets in struct grub_fs (include/grub/fs.h): {next, prev, name, fs_dir, …} in GRUB 2.12,
// {next, prev, name, mod, fs_dir, …} since "kern/file: Implement filesystem reference
// counting", which distributions' 2.12 has as a security update.
const (
	fsNameOffset  = 16
	fsThirdOffset = 24 // fs_dir, or mod
	fsNextOffset  = 32 // fs_open, or fs_dir
)

const relaSize = 24 // bytes of an Elf64_Rela {u64 offset, u64 info, i64 addend}

// fsHasMod reads off ext2.mod which of the two layouts its GRUB has: a function that is
// known when the module is linked has a relocation, and mod, set as the module starts, has none.
func fsHasMod(ext2 []byte) (bool, error) {
	f, err := elf.NewFile(bytes.NewReader(ext2))
	if err != nil {
		return false, fmt.Errorf("%w: read ext2.mod: %w", ErrModules, err)
	}
	section := f.Section(".rela.data")
	if section == nil {
		return false, fmt.Errorf("%w: ext2.mod has no .rela.data", ErrModules)
	}
	data, err := section.Data()
	if err != nil {
		return false, fmt.Errorf("%w: read ext2.mod: %w", ErrModules, err)
	}
	at := map[uint64]bool{}
	for ; len(data) >= relaSize; data = data[relaSize:] {
		at[binary.LittleEndian.Uint64(data)] = true
	}
	if at[0] || at[8] || !at[fsNameOffset] || !at[fsNextOffset] {
		return false, fmt.Errorf("%w: struct grub_fs in ext2.mod is laid out in a way that is not known", ErrModules)
	}
	return !at[fsThirdOffset], nil
}

// Relocations that GRUB's loader knows on x86_64 (kern/x86_64/dl.c) and that reach every address.
var relocations = map[elf.R_X86_64]bool{
	elf.R_X86_64_64: true, elf.R_X86_64_PC64: true,
	elf.R_X86_64_PC32: true, elf.R_X86_64_PLT32: true, // within a module
}

// checkObject says whether GRUB will be able to load our module. It would find out as it
// starts, where nobody is told. All that the module takes from others is in GRUB's kernel,
// which holds the names of what it exports.
func checkObject(module, kernel []byte) error {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return fmt.Errorf("read the compiled module: %w", err)
	}
	symbols, err := f.Symbols()
	if err != nil {
		return fmt.Errorf("read the compiled module: %w", err)
	}
	for _, s := range symbols {
		if s.Section != elf.SHN_UNDEF || s.Name == "" {
			continue
		}
		if !bytes.Contains(kernel, []byte("\x00"+s.Name+"\x00")) {
			return fmt.Errorf("%w: GRUB's kernel does not export %s", ErrModules, s.Name)
		}
	}
	for _, section := range f.Sections {
		if section.Type != elf.SHT_RELA {
			continue
		}
		data, err := section.Data()
		if err != nil {
			return fmt.Errorf("read the compiled module: %w", err)
		}
		for ; len(data) >= relaSize; data = data[relaSize:] {
			if kind := elf.R_X86_64(binary.LittleEndian.Uint64(data[8:]) & 0xffffffff); !relocations[kind] {
				return fmt.Errorf("compile GRUB module: the compiler made a relocation %v, which GRUB does not load", kind)
			}
		}
	}
	return nil
}
