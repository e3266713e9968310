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
	const entry = 24 // Elf64_Rela
	at := map[uint64]bool{}
	for ; len(data) >= entry; data = data[entry:] {
		at[binary.LittleEndian.Uint64(data)] = true
	}
	if at[0] || at[8] || !at[fsNameOffset] || !at[fsNextOffset] {
		return false, fmt.Errorf("%w: struct grub_fs in ext2.mod is laid out in a way that is not known", ErrModules)
	}
	return !at[fsThirdOffset], nil
}

// checkSymbols says whether all that our module takes from others is there. GRUB would find
// out as it starts, where nobody is told. All come from GRUB's kernel, which holds the
// names of what it exports.
func checkSymbols(module, kernel []byte) error {
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
	return nil
}
