package grub

import (
	"bytes"
	"debug/pe"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestEmbedded reads an EFI application back, and spoils it.
func TestEmbedded(t *testing.T) {
	tools, err := FindTools(filepath.Join(testtool.Deps(), "root"))
	if errors.Is(err, ErrTools) {
		testtool.Missing(t, "GRUB 2.12 for x86_64-efi")
	}
	efi, info, err := Build(t.Context(), Config{}, tools)
	if err != nil {
		t.Fatal(err)
	}
	text, err := Config{}.Text()
	if err != nil {
		t.Fatal(err)
	}
	disk, err := memdisk(text)
	if err != nil {
		t.Fatal(err)
	}
	modules, _, err := embedded(efi)
	if err != nil || !slices.Equal(modules, info.Modules) {
		t.Fatalf("modules %q, want %q; %v", modules, info.Modules, err)
	}
	if got, err := checkEmbedded(efi, slices.Sorted(slices.Values(info.Modules)), disk); err != nil || !slices.Equal(got, modules) {
		t.Fatal(got, err)
	}
	file, err := pe.NewFile(bytes.NewReader(efi))
	if err != nil {
		t.Fatal(err)
	}
	magic := int(file.Section("mods").Offset)
	own := bytes.LastIndex(efi, []byte("\x7fELF")) - objectHeader
	change := func(at int, b ...byte) []byte { return slices.Concat(efi[:at], b, efi[at+len(b):]) }
	for name, spoiled := range map[string][]byte{
		"nothing":              nil,
		"no PE":                change(0, 0),
		"magic":                change(magic, 0),
		"first object's place": change(magic+8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff),
		"end":                  change(magic+16, 0xff, 0xff, 0xff, 0xff),
		"size of an object":    change(own+4, 0xff, 0xff, 0xff, 0x7f),
		"object of no bytes":   change(own+4, 0, 0, 0, 0),
		"a configuration":      change(own, objectConfig),
		"own module missing":   change(own, objectPrefix),
		"own module no ELF":    change(own+objectHeader, 0),
		"settings":             bytes.Replace(efi, []byte("version='1'"), []byte("version='2'"), 1),
	} {
		if got, err := checkEmbedded(spoiled, info.Modules, disk); !errors.Is(err, ErrModules) || got != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := checkEmbedded(efi, info.Modules[1:], disk); !errors.Is(err, ErrModules) {
		t.Errorf("a module too many: %v", err)
	}
}
