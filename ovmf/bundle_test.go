package ovmf

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
)

// bundledSmall is the SHA-256 of small.fd bundled with efiApplication(0x1000, 'g'). Other bytes mean other
// launch digests for everybody: whoever changes it says so in the release notes.
const bundledSmall = "1834e2d9772d3cd05d721dfe33b049a1f0a2d47d39e1fbf5941adbd85bf216d8"

func TestBundle(t *testing.T) {
	firmware, grub := small(t), efiApplication(0x1000, 'g')
	out := mustBundle(t, firmware, grub)
	if sum := sha256.Sum256(out); hex.EncodeToString(sum[:]) != bundledSmall {
		t.Errorf("SHA-256 %x", sum)
	}
	if !bytes.Equal(mustBundle(t, firmware, grub), out) {
		t.Error("bundled twice, the bytes differ")
	}
	if got, err := BundledGRUB(out); err != nil || !bytes.Equal(got, grub) {
		t.Errorf("GRUB comes out as %d bytes, %v", len(got), err)
	}
	if !bytes.Equal(firmware, small(t)) {
		t.Error("the firmware that went in was changed")
	}
	onlyGRUBChanged(t, firmware, out)
}

// onlyGRUBChanged compares the trees: every file but GRUB's and the drivers that are taken out is where and what it was.
func onlyGRUBChanged(t *testing.T, before, after []byte) {
	t.Helper()
	a, b := mustUnpack(t, before), mustUnpack(t, after)
	for i := range a.parts {
		if i != a.mainPart && !reflect.DeepEqual(a.parts[i], b.parts[i]) {
			t.Errorf("part %d of the image changed", i)
		}
	}
	compared := 0
	for i, v := range a.Packed() {
		w := b.Packed()[i]
		if v.Size() != w.Size() || v.Offset != w.Offset {
			t.Errorf("volume %v is %d bytes at %#x, was %d at %#x", v.Name, w.Size(), w.Offset, v.Size(), v.Offset)
		}
		at := len(v.head)
		for j, f := range v.Files {
			if g := w.Files[j]; !reflect.DeepEqual(f, g) {
				if f.GUID != grubGUID && !slices.Contains(fileSystems, f.GUID) || g.Type != filePad || g.size() != f.size() || !isErased(g.Body) {
					t.Errorf("volume %v, file %v at %#x became %v", v.Name, f.GUID, at, g.GUID)
				}
				continue
			}
			at += align(f.size(), 8)
			compared++
		}
	}
	if compared < 5 {
		t.Errorf("only %d files compared", compared)
	}
	v, grub := b.grub()
	if grub == nil || grub != v.Files[len(v.Files)-1] || grub.Type != fileApplication || grub.uiName() != "Grub" {
		t.Errorf("GRUB's file %+v", grub)
	}
}

// TestBundleAgain: bundling replaces, and leaves no trace of what was bundled before.
func TestBundleAgain(t *testing.T) {
	firmware := small(t)
	one, two := efiApplication(0x1000, '1'), efiApplication(0x5001, '2')
	for name, grubs := range map[string][2][]byte{"larger": {one, two}, "smaller": {two, one}, "same": {one, one}} {
		direct := mustBundle(t, firmware, grubs[1])
		again := mustBundle(t, mustBundle(t, firmware, grubs[0]), grubs[1])
		if !bytes.Equal(again, direct) {
			t.Errorf("%s: bundled over another, the bytes differ from bundled at once", name)
		}
	}
}

// TestBundleDistribution does the real thing with the real image.
func TestBundleDistribution(t *testing.T) {
	firmware, grub := amdSev(t), efiApplication(1_000_003, 'g')
	out := mustBundle(t, firmware, grub)
	onlyGRUBChanged(t, firmware, out)
	if got, err := BundledGRUB(out); err != nil || !bytes.Equal(got, grub) {
		t.Errorf("GRUB comes out as %d bytes, %v", len(got), err)
	}
	if !bytes.Equal(mustBundle(t, out, grub), out) {
		t.Error("bundled again, the bytes differ")
	}
}

// without gives the small image with its table entry for an area emptied.
func without(t *testing.T, entry int) []byte { return patch(t, entry, make([]byte, 8)...) }

func TestBundleRefusals(t *testing.T) {
	firmware, grub := small(t), efiApplication(0x1000, 'g')
	mustBundle(t, firmware, grub)
	noGRUB := mustUnpack(t, firmware)
	v, file := noGRUB.grub()
	v.Files[slices.Index(v.Files, file)] = file.pad()
	for name, test := range map[string]struct {
		firmware, grub []byte
		want           error
	}{
		"not OVMF":          {firmware[:len(firmware)-1], grub, ErrNotOVMF},
		"GRUB for firmware": {grub, grub, ErrNotOVMF},
		"no secret area":    {without(t, secretEntry), grub, ErrNoSecretArea},
		"no place for GRUB": {mustPack(t, noGRUB), grub, ErrNoGRUB},
		"firmware for GRUB": {firmware, firmware, ErrNotEFIApplication},
		"no GRUB":           {firmware, nil, ErrNotEFIApplication},
	} {
		if out, err := Bundle(test.firmware, test.grub); out != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
	broken := bytes.Clone(firmware)
	broken[50]++ // checksum of the outer volume
	if out, err := Bundle(broken, grub); out != nil || !errors.As(err, new(*FormatError)) {
		t.Errorf("broken volume: %d bytes, %v", len(out), err)
	}
}

// incompressible gives an application that does not pack.
func incompressible(size int) []byte {
	b := efiApplication(size, 0)
	x := uint32(1)
	for i := 0x200; i < size; i++ {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

func TestBundleTooLarge(t *testing.T) {
	report, err := Inspect(small(t))
	if err != nil {
		t.Fatal(err)
	}
	room := report.GRUB.Room
	if room < 0xff00 || room > 0x10000 {
		t.Fatalf("room for %d bytes", room)
	}
	mustBundle(t, small(t), efiApplication(room, 0))
	for name, grub := range map[string][]byte{
		"the volume":        efiApplication(room+8, 0), // sizes are rounded up to 8
		"the packed volume": incompressible(room),
		"a file":            efiApplication(1<<24, 0),
	} {
		out, err := Bundle(small(t), grub)
		large := (*TooLargeError)(nil)
		if out != nil || !errors.As(err, &large) || large.Need <= large.Room || large.Room <= 0 {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

func TestBundleRefusesOtherBootPaths(t *testing.T) {
	ui := encodeSections([]section{{kind: sectionUI, data: []byte("S\x00h\x00\x00\x00")}})
	for name, test := range map[string]struct {
		id   string
		kind FileType
		name string
	}{
		"shell":               {"7c04a583-9e3e-4f1c-ad65-e05268d0b4d1", fileApplication, "Sh"},
		"shell as a driver":   {"7c04a583-9e3e-4f1c-ad65-e05268d0b4d1", 0x07, "Sh"},
		"old shell":           {"c57ad6b7-0515-40a8-9d21-551652854e37", fileApplication, "Sh"},
		"unknown application": {"11111111-2222-3333-4444-555555555555", fileApplication, "Sh"},
		"second GRUB":         {grubGUID.String(), fileApplication, "Sh"},
		"volume in a volume":  {"11111111-2222-3333-4444-555555555555", fileVolumeImage, "Sh"},
	} {
		for i := range 2 {
			tree := mustUnpack(t, small(t))
			addFile(tree.Packed()[i], test.id, test.kind, ui)
			firmware := mustPack(t, tree)
			out, err := Bundle(firmware, efiApplication(0x1000, 'g'))
			bad := (*BootPathError)(nil)
			if out != nil || !errors.As(err, &bad) || bad.GUID != guid.MustParse(test.id) {
				t.Errorf("%s in volume %d: %d bytes, %v", name, i, len(out), err)
			} else if bad.GUID != grubGUID && bad.Name != test.name {
				t.Errorf("%s: called %q", name, bad.Name)
			}
			report, err := Inspect(firmware)
			if err != nil || len(report.Problems) == 0 {
				t.Errorf("%s: inspect reports %v, %v", name, report, err)
			}
		}
	}
	// A known application is no boot path, and neither is a loader that checks what it loads.
	tree := mustUnpack(t, small(t))
	addFile(dxe(t, tree), knownApplications[0].String(), fileApplication, ui)
	addFile(dxe(t, tree), kernelLoader.String(), 0x07, ui)
	firmware := mustPack(t, tree)
	mustBundle(t, firmware, efiApplication(0x1000, 'g'))
	copy(firmware[len(firmware)-hashesEntry:], make([]byte, 8))
	out, err := Bundle(firmware, efiApplication(0x1000, 'g'))
	if bad := (*BootPathError)(nil); out != nil || !errors.As(err, &bad) || bad.GUID != kernelLoader {
		t.Errorf("loader of unchecked kernels: %d bytes, %v", len(out), err)
	}
}

// TestBundleOddGRUBFiles: a place for GRUB that is not what edk2 makes is refused, not repaired.
func TestBundleOddGRUBFiles(t *testing.T) {
	for name, spoil := range map[string]func(tree *Tree, f *File){
		"no application in it":  func(_ *Tree, f *File) { f.Body = encodeSections([]section{{kind: sectionUI, data: []byte{0, 0}}}) },
		"two applications":      func(_ *Tree, f *File) { f.Body = encodeSections([]section{{kind: sectionPE32}, {kind: sectionPE32}}) },
		"no sections":           func(_ *Tree, f *File) { f.Body = []byte{1} },
		"tied to its place":     func(_ *Tree, f *File) { f.Attributes |= fileFixed },
		"aligned":               func(_ *Tree, f *File) { f.Attributes |= 0x10 },
		"files behind the main": func(tree *Tree, _ *File) { addFile(tree.parts[0].volume, padGUID.String(), filePad, nil) },
	} {
		tree := mustUnpack(t, small(t))
		v, f := tree.grub()
		size := align(f.size(), 8)
		spoil(tree, f)
		v.Free += size - align(f.size(), 8)
		if out, err := Bundle(mustPack(t, tree), efiApplication(0x1000, 'g')); out != nil || !errors.As(err, new(*FormatError)) {
			t.Errorf("%s: %d bytes, %v", name, len(out), err)
		}
	}
}

func TestEFIApplicationRefusals(t *testing.T) {
	good := efiApplication(0x400, 'g')
	if err := checkEFIApplication(good); err != nil {
		t.Fatal(err)
	}
	const pe = 0x40
	for name, spoil := range map[string]func(b []byte) []byte{
		"empty":                  func(b []byte) []byte { return nil },
		"no MZ":                  func(b []byte) []byte { b[0] = 'N'; return b },
		"PE header far away":     func(b []byte) []byte { copy(b[60:], u32(0xfffffff0)); return b },
		"PE header at the end":   func(b []byte) []byte { copy(b[60:], u32(0x400-23)); return b },
		"no PE":                  func(b []byte) []byte { b[pe] = 'L'; return b },
		"32 bits":                func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+4:], 0x14c); return b },
		"ARM":                    func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+4:], 0xaa64); return b },
		"PE32":                   func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+24:], 0x10b); return b },
		"boot service driver":    func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+24+68:], 11); return b },
		"Windows program":        func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+24+68:], 3); return b },
		"no sections":            func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+6:], 0); return b },
		"too many sections":      func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+6:], 0xffff); return b },
		"short optional header":  func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+20:], 111); return b },
		"long optional header":   func(b []byte) []byte { binary.LittleEndian.PutUint16(b[pe+20:], 0xffff); return b },
		"section beyond the end": func(b []byte) []byte { return b[:len(b)-1] },
		"section far away":       func(b []byte) []byte { copy(b[pe+24+112+20:], u32(0xffffffff)); return b },
		"ELF":                    func(b []byte) []byte { copy(b, "\x7fELF"); return b },
	} {
		if err := checkEFIApplication(spoil(bytes.Clone(good))); !errors.Is(err, ErrNotEFIApplication) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkBundle(b *testing.B) {
	firmware, grub := amdSev(b), incompressible(1<<20)
	for b.Loop() {
		mustBundle(b, firmware, grub)
	}
}
