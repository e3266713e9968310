package grub

import (
	"bytes"
	"debug/elf"
	"debug/pe"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Structures of include/grub/kernel.h: grub_module_info64 {u32 magic, u32, u64 offset,
// u64 size}, then one grub_module_header {u32 type, u32 size} before each object.
const (
	modulesMagic  = 0x676d696d // GRUB_MODULE_MAGIC
	modulesHeader = 24
	objectHeader  = 8
)

// Types of objects (enum in include/grub/kernel.h).
const (
	objectELF     = 0
	objectMemdisk = 1
	objectConfig  = 2
	objectPrefix  = 3
)

// embedded reads back what grub-mkimage put into an EFI application: the names of the
// modules in the order in which GRUB starts them, and the memdisk.
func embedded(efi []byte) (modules []string, disk []byte, err error) {
	refuse := func(format string, args ...any) ([]string, []byte, error) {
		return nil, nil, fmt.Errorf("%w: grub-mkimage wrote what cannot be read back: %w", ErrModules, fmt.Errorf(format, args...))
	}
	f, err := pe.NewFile(bytes.NewReader(efi))
	if err != nil {
		return refuse("%w", err)
	}
	section := f.Section("mods")
	if section == nil {
		return refuse("no section mods")
	}
	data, err := section.Data()
	if err != nil {
		return refuse("%w", err)
	}
	if len(data) < modulesHeader || binary.LittleEndian.Uint32(data) != modulesMagic {
		return refuse("no list of modules")
	}
	at, end := binary.LittleEndian.Uint64(data[8:]), binary.LittleEndian.Uint64(data[16:])
	if at < modulesHeader || at > end || end > uint64(len(data)) {
		return refuse("modules from %d to %d of %d bytes", at, end, len(data))
	}
	for rest := data[at:end]; len(rest) > 0; {
		if len(rest) < objectHeader {
			return refuse("%d bytes behind the last object", len(rest))
		}
		kind, size := binary.LittleEndian.Uint32(rest), uint64(binary.LittleEndian.Uint32(rest[4:]))
		if size < objectHeader || size > uint64(len(rest)) || size%8 != 0 { // GRUB goes by steps of 8
			return refuse("object of %d bytes, %d left", size, len(rest))
		}
		object := rest[objectHeader:size]
		rest = rest[size:]
		switch kind {
		case objectELF:
			name, err := moduleNameOf(object)
			if err != nil {
				return refuse("%w", err)
			}
			modules = append(modules, name)
		case objectMemdisk:
			if disk != nil {
				return refuse("two memdisks")
			}
			disk = object
		case objectPrefix:
		default:
			return refuse("object of type %d", kind)
		}
	}
	return modules, disk, nil
}

func moduleNameOf(object []byte) (string, error) {
	f, err := elf.NewFile(bytes.NewReader(object))
	if err != nil {
		return "", err
	}
	section := f.Section(".modname")
	if section == nil {
		return "", fmt.Errorf("a module without a name")
	}
	name, err := section.Data()
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(name), "\x00"), nil
}

// checkEmbedded says whether an EFI application holds what it was made of and nothing else,
// and gives the modules in the order in which they start. Everything hangs on ours being
// the last: what it uses has to be there by then, and nothing may come after it.
func checkEmbedded(efi []byte, names []string, memdisk []byte) ([]string, error) {
	modules, disk, err := embedded(efi)
	if err != nil {
		return nil, err
	}
	if len(modules) == 0 || modules[len(modules)-1] != moduleName {
		return nil, fmt.Errorf("%w: %s is not the last of the modules %s", ErrModules, moduleName, strings.Join(modules, " "))
	}
	sorted, wanted := slices.Sorted(slices.Values(modules)), slices.Sorted(slices.Values(names))
	if !slices.Equal(sorted, wanted) {
		return nil, fmt.Errorf("%w: grub-mkimage took the modules %s, and should have taken %s", ErrModules, strings.Join(sorted, " "), strings.Join(wanted, " "))
	}
	// grub-mkimage fills up to a multiple of 512 bytes with zeros.
	if !bytes.HasPrefix(disk, memdisk) || bytes.ContainsFunc(disk[len(memdisk):], func(r rune) bool { return r != 0 }) {
		return nil, fmt.Errorf("%w: grub-mkimage changed the memdisk", ErrModules)
	}
	return modules, nil
}
