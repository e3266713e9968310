package ovmf

import (
	"archive/tar"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Structures of GRUB's include/grub/kernel.h: grub_module_info64 {u32 magic, u32, u64 offset, u64 size}
// at the start of the PE section "mods", then a grub_module_header {u32 type, u32 size} before each object.
const (
	grubSection       = "mods\x00\x00\x00\x00"
	grubModulesMagic  = 0x676d696d // GRUB_MODULE_MAGIC
	grubModulesHeader = 24
	grubObjectHeader  = 8
	grubMaxObjects    = 512 // GRUB has some 300 modules
)

// Types of objects (enum in include/grub/kernel.h).
const (
	grubELF     = 0
	grubMemdisk = 1
	grubConfig  = 2
	grubPrefix  = 3
)

// grubImage is what grub-mkimage put into an EFI application.
type grubImage struct {
	modules []string // in the order in which GRUB starts them
	memdisk []byte   // nil if it has none
	config  []byte   // a configuration that GRUB runs by itself, nil if it has none
	others  []uint32 // types of objects that are not known here: keys, device trees, …
}

// parseGRUB takes apart a GRUB that checkEFIApplication accepted. It keeps no copy of it.
func parseGRUB(efi []byte) (*grubImage, error) {
	const where = "GRUB"
	data, at := peSectionNamed(efi, grubSection)
	fail := func(offset int, format string, args ...any) (*grubImage, error) {
		return nil, &FormatError{where, at + offset, fmt.Sprintf(format, args...)}
	}
	if len(data) < grubModulesHeader || binary.LittleEndian.Uint32(data) != grubModulesMagic {
		return fail(0, "no list of modules: not a GRUB")
	}
	start, end := binary.LittleEndian.Uint64(data[8:]), binary.LittleEndian.Uint64(data[16:])
	if start < grubModulesHeader || start > end || end > uint64(len(data)) {
		return fail(8, "modules from %#x to %#x of %d bytes", start, end, len(data))
	}
	g := &grubImage{}
	count := 0
	for next := start; next < end; count++ {
		rest, offset := data[next:end], int(next)
		if count == grubMaxObjects {
			return fail(offset, "more than %d objects", grubMaxObjects)
		}
		if len(rest) < grubObjectHeader {
			return fail(offset, "%d bytes behind the last object", len(rest))
		}
		kind, size := binary.LittleEndian.Uint32(rest), uint64(binary.LittleEndian.Uint32(rest[4:]))
		if size < grubObjectHeader || size > uint64(len(rest)) {
			return fail(offset, "object of %d bytes, %d left", size, len(rest))
		}
		object := rest[grubObjectHeader:size:size]
		switch kind {
		case grubELF:
			name, err := grubModuleName(object)
			if err != nil {
				return fail(offset+grubObjectHeader, "module: %v", err)
			}
			g.modules = append(g.modules, name)
		case grubMemdisk:
			if g.memdisk != nil {
				return fail(offset, "a second memdisk")
			}
			g.memdisk = object
		case grubConfig:
			g.config = object
		case grubPrefix:
		default:
			g.others = append(g.others, kind)
		}
		next += size
	}
	return g, nil
}

// peSectionNamed gives a section of an application that checkEFIApplication accepted, and its offset.
func peSectionNamed(b []byte, name string) (data []byte, offset int) {
	h := b[binary.LittleEndian.Uint32(b[60:]):]
	table := peHeaders + int(binary.LittleEndian.Uint16(h[20:]))
	for i := range int(binary.LittleEndian.Uint16(h[6:])) {
		s := h[table+peSection*i:]
		if string(s[:8]) == name {
			size, at := binary.LittleEndian.Uint32(s[16:]), binary.LittleEndian.Uint32(s[20:])
			if size == 0 {
				return nil, 0
			}
			return b[at : at+size], int(at)
		}
	}
	return nil, 0
}

// grubModuleName reads the section .modname of a module, an ELF object (System V ABI, chapter 4; ELF-64).
func grubModuleName(b []byte) (string, error) {
	const elfHeader, sectionSize, maxName = 64, 64, 64
	if len(b) < elfHeader || string(b[:6]) != "\x7fELF\x02\x01" { // 64 bits, little-endian
		return "", errors.New("no ELF object of 64 bits")
	}
	table, size := binary.LittleEndian.Uint64(b[40:]), binary.LittleEndian.Uint16(b[58:])
	count, names := uint64(binary.LittleEndian.Uint16(b[60:])), uint64(binary.LittleEndian.Uint16(b[62:]))
	length := uint64(len(b))
	if size != sectionSize || table > length || count*sectionSize > length-table || names >= count {
		return "", fmt.Errorf("%d sections of %d bytes at %#x, names in section %d, of %d bytes", count, size, table, names, length)
	}
	contents := func(i uint64) ([]byte, error) {
		s := b[table+i*sectionSize:]
		at, n := binary.LittleEndian.Uint64(s[24:]), binary.LittleEndian.Uint64(s[32:])
		if at > length || n > length-at {
			return nil, fmt.Errorf("section %d has %d bytes at %#x, of %d", i, n, at, length)
		}
		return b[at : at+n], nil
	}
	table0, err := contents(names)
	if err != nil {
		return "", err
	}
	for i := range count {
		at := uint64(binary.LittleEndian.Uint32(b[table+i*sectionSize:]))
		if at > uint64(len(table0)) || !bytes.HasPrefix(table0[at:], []byte(".modname\x00")) {
			continue
		}
		name, err := contents(i)
		if err != nil {
			return "", err
		}
		name, _, _ = bytes.Cut(name, []byte{0})
		if len(name) == 0 || len(name) > maxName {
			return "", fmt.Errorf("name of %d bytes", len(name))
		}
		return string(name), nil
	}
	return "", errors.New("no name")
}

// GRUBSettings are what our module reads from the memdisk (grub/module/settings.c).
type GRUBSettings struct {
	DiskUUID string `json:"disk_uuid"` // empty: any disk
	Append   string `json:"append"`
	Serial   bool   `json:"serial"`
}

const maxSettings = 16 << 10 // bytes of grub.cfg

// grubSettings reads grub.cfg in a memdisk as the module does: the first file, and refuses any other.
func grubSettings(memdisk []byte) (*GRUBSettings, error) {
	archive := tar.NewReader(bytes.NewReader(memdisk))
	head, err := archive.Next()
	if err != nil {
		return nil, fmt.Errorf("memdisk: %w", err)
	}
	if head.Name != "grub.cfg" || head.Typeflag != tar.TypeReg || head.Size > maxSettings {
		return nil, fmt.Errorf("memdisk: %q of %d bytes and not grub.cfg", head.Name, head.Size)
	}
	text, err := io.ReadAll(archive)
	if err != nil {
		return nil, fmt.Errorf("memdisk: %w", err)
	}
	if head, err := archive.Next(); err != io.EOF {
		if err == nil {
			err = fmt.Errorf("a second file %q", head.Name)
		}
		return nil, fmt.Errorf("memdisk: %w", err)
	}
	return parseSettings(string(text))
}

func parseSettings(text string) (*GRUBSettings, error) {
	if !strings.HasSuffix(text, "\n") {
		return nil, errors.New("settings: they do not end with a line's end")
	}
	values := map[string]string{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSuffix(line, "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, _ := strings.Cut(line, "=")
		_, twice := values[name]
		inner, open := strings.CutPrefix(value, "'")
		inner, closed := strings.CutSuffix(inner, "'")
		printable := !strings.ContainsFunc(inner, func(r rune) bool { return r < ' ' || r > '~' || r == '\'' })
		switch {
		case name != "version" && name != "disk_uuid" && name != "append" && name != "serial":
			return nil, fmt.Errorf("settings: line %d is not known", n)
		case twice:
			return nil, fmt.Errorf("settings: line %d gives %s again", n, name)
		case !open || !closed || !printable:
			return nil, fmt.Errorf("settings: line %d is no value of printable characters in quotes", n)
		}
		values[name] = inner
	}
	switch {
	case len(values) != 4:
		return nil, fmt.Errorf("settings: %d of 4", len(values))
	case values["version"] != "1":
		return nil, fmt.Errorf("settings: version %q", values["version"])
	case values["serial"] != "0" && values["serial"] != "1":
		return nil, fmt.Errorf("settings: serial %q", values["serial"])
	case values["disk_uuid"] != "" && len(values["disk_uuid"]) != 36:
		return nil, fmt.Errorf("settings: disk_uuid %q", values["disk_uuid"])
	}
	return &GRUBSettings{DiskUUID: values["disk_uuid"], Append: values["append"], Serial: values["serial"] == "1"}, nil
}
