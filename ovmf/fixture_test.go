package ovmf

import (
	"bytes"
	"encoding/binary"
	"flag"
	"os"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/testtool"
)

var update = flag.Bool("update", false, "write testdata/small.fd anew from the distribution's OVMF.amdsev.fd")

const smallFirmware = "testdata/small.fd"

// smallGRUB is an application for scripts, efiApplication(1024, 'g').
const smallGRUB = "testdata/application.efi"

// small gives a real firmware image with most of its files taken out (see TestSmallFirmware):
// all structures of the distribution's image in 72 KiB.
func small(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(smallFirmware)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func amdSev(t testing.TB) []byte {
	t.Helper()
	data, err := os.ReadFile(testtool.AmdSevFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustUnpack(t testing.TB, data []byte) *Tree {
	t.Helper()
	tree, err := Unpack(data)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func mustPack(t testing.TB, tree *Tree) []byte {
	t.Helper()
	data, err := tree.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustBundle(t testing.TB, firmware, grub []byte) []byte {
	t.Helper()
	data, err := Bundle(firmware, grub)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// dxe gives the packed volume that holds GRUB.
func dxe(t testing.TB, tree *Tree) *Volume {
	t.Helper()
	v, _ := tree.grub()
	if v == nil {
		t.Fatal("no GRUB")
	}
	return v
}

// efiApplication makes a PE32+ EFI application that a firmware would load, of size bytes and filled with fill.
func efiApplication(size int, fill byte) []byte {
	b := bytes.Repeat([]byte{fill}, size)
	clear(b[:0x200])
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 0x40)
	h := b[0x40:]
	copy(h, "PE\x00\x00")
	binary.LittleEndian.PutUint16(h[4:], 0x8664)
	binary.LittleEndian.PutUint16(h[6:], 1)    // sections
	binary.LittleEndian.PutUint16(h[20:], 112) // optional header
	binary.LittleEndian.PutUint16(h[24:], 0x20b)
	binary.LittleEndian.PutUint16(h[24+68:], 10)
	section := h[24+112:]
	copy(section, ".text")
	binary.LittleEndian.PutUint32(section[16:], uint32(size-0x200))
	binary.LittleEndian.PutUint32(section[20:], 0x200)
	return b
}

// TestSmallFirmware makes testdata/small.fd from the distribution's image (go test -run
// TestSmallFirmware -update): the variable store left out, of the files in the packed volumes
// only a few small ones kept, volumes cut to what is left. The parts are edk2's
// (BSD-2-Clause-Patent). Without -update it checks that small.fd is of that kind.
func TestSmallFirmware(t *testing.T) {
	if *update {
		tree := mustUnpack(t, amdSev(t))
		for _, v := range tree.Packed() {
			v.Files = slices.DeleteFunc(v.Files, func(f *File) bool { return f.size() > 0x30a0 && f.GUID != grubGUID || f.Type == filePad })
			resize(v, 0x10000)
		}
		tree.parts, tree.mainPart = tree.parts[1:], 0 // without the variable store
		resize(tree.parts[0].volume, 0x200000)        // room enough to pack
		for _, f := range tree.parts[1].volume.Files {
			if f.Type == filePad {
				f.Body = f.Body[:0x1000-fileHeader] // keeps the reset vector at the end
			}
		}
		tree.parts[1].volume.Files[0].Body = nil // SecMain
		resize(tree.parts[1].volume, 0)
		packed := mustUnpack(t, mustPack(t, tree))
		main := packed.parts[0].volume
		resize(main, 0x8000+(PageSize-(main.Size()-main.Free+packed.parts[1].volume.Size())%PageSize))
		if err := os.WriteFile(smallFirmware, mustPack(t, packed), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(smallGRUB, efiApplication(1024, 'g'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if app, err := os.ReadFile(smallGRUB); err != nil || !bytes.Equal(app, efiApplication(1024, 'g')) {
		t.Errorf("%s is not what this test makes: %v", smallGRUB, err)
	}
	img, err := Parse(small(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := img.SecretArea(); !ok || len(img.Metadata()) != 7 {
		t.Error("not a build for AMD SEV")
	}
	tree := mustUnpack(t, small(t))
	if len(tree.Volumes()) != 4 || len(dxe(t, tree).Files) < 5 {
		t.Errorf("%d volumes, %d files beside GRUB's", len(tree.Volumes()), len(dxe(t, tree).Files))
	}
}

// resize changes a volume's free space, and so its size.
func resize(v *Volume, free int) {
	v.Free = free
	size := v.Size()
	head := bytes.Clone(v.head)
	binary.LittleEndian.PutUint64(head[32:], uint64(size))
	binary.LittleEndian.PutUint32(head[56:], uint32(size/8)) // block map: blocks of 8 bytes
	binary.LittleEndian.PutUint32(head[60:], 8)
	binary.LittleEndian.PutUint16(head[50:], 0)
	binary.LittleEndian.PutUint16(head[50:], -sum16(head[:binary.LittleEndian.Uint16(head[48:])]))
	v.head = head
}

// addFile puts a file into a volume's free space.
func addFile(v *Volume, id string, kind FileType, body []byte) {
	f := &File{GUID: guid.MustParse(id), Type: kind, Body: body}
	v.Files, v.Free = append(v.Files, f), v.Free-align(f.size(), 8)
}
