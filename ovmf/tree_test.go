package ovmf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"reflect"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestTakeApartPutTogether takes images apart and puts them together: first as they are, which must
// give the same bytes, then packed anew, which must give the same tree.
func TestTakeApartPutTogether(t *testing.T) {
	images := map[string]func(t *testing.T) string{
		"small":   func(*testing.T) string { return smallFirmware },
		"AMD SEV": func(t *testing.T) string { return testtool.AmdSevFirmware(t) },
		"plain":   func(t *testing.T) string { return testtool.File(t, "usr/share/ovmf/OVMF.fd") },
		"only code": func(t *testing.T) string {
			return testtool.File(t, "usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "usr/share/OVMF/OVMF_CODE_4M.fd")
		},
	}
	for name, find := range images {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			data, err := os.ReadFile(find(t))
			if err != nil {
				t.Fatal(err)
			}
			tree := mustUnpack(t, data)
			if !bytes.Equal(mustPack(t, tree), data) {
				t.Error("put together, the image has other bytes")
			}
			tree.unpacked = nil // packs even though nothing changed
			packed, err := tree.Pack()
			if large := (*TooLargeError)(nil); name == "plain" && errors.As(err, &large) {
				return // a 2 MiB image has no room to spare for a packer weaker than edk2's
			}
			if err != nil {
				t.Fatal(err)
			}
			again := mustUnpack(t, packed)
			if len(tree.Volumes()) < 3 || !reflect.DeepEqual(again.innerFV, tree.innerFV) || !reflect.DeepEqual(again.inner, tree.inner) {
				t.Error("packed anew, the packed volumes differ")
			}
			for i := range tree.parts {
				if i != tree.mainPart && !reflect.DeepEqual(again.parts[i], tree.parts[i]) {
					t.Errorf("packed anew, part %d differs", i)
				}
			}
			if len(packed) != len(data) || !bytes.Equal(mustPack(t, again), packed) {
				t.Error("packed anew and taken apart, the image has other bytes")
			}
		})
	}
}

// reseal corrects a volume's header checksum.
func reseal(b []byte) {
	binary.LittleEndian.PutUint16(b[50:], 0)
	binary.LittleEndian.PutUint16(b[50:], -sum16(b[:binary.LittleEndian.Uint16(b[48:])]))
}

// TestUnpackRefusals spoils the outer volume, which is not packed, one field at a time.
func TestUnpackRefusals(t *testing.T) {
	good := small(t)
	tree := mustUnpack(t, good)
	const file = 0x78                 // the file that holds volumes
	const section = file + fileHeader // its packed section
	const lzma = section + 4 + 20     // the packed data
	end := file + align(tree.main.size(), 8)
	for name, spoil := range map[string]func(b []byte){
		"header checksum":       func(b []byte) { b[50]++ },
		"revision":              func(b []byte) { b[55] = 1; reseal(b) },
		"erase polarity":        func(b []byte) { b[45] &^= 0x08; reseal(b) },
		"length beyond the end": func(b []byte) { b[35] = 1; reseal(b) },
		"odd length":            func(b []byte) { b[32]++; reseal(b) },
		"length of nothing":     func(b []byte) { clear(b[32:40]) },
		"huge length":           func(b []byte) { b[39] = 0x80; reseal(b) },
		"header length 0":       func(b []byte) { clear(b[48:50]) },
		"header beyond the end": func(b []byte) { b[49] = 0xff },
		"extended header early": func(b []byte) { b[52] = 8; reseal(b) },
		"extended header late":  func(b []byte) { b[52], b[53] = 0xff, 0xff; reseal(b) },
		"extended header size":  func(b []byte) { copy(b[0x60+16:], u32(0xfffffff0)) },
		"extended header short": func(b []byte) { copy(b[0x60+16:], u32(19)) },
		"file header checksum":  func(b []byte) { b[file+16]++ },
		"file checksum":         func(b []byte) { b[file+17]++ },
		"file state":            func(b []byte) { b[file+23] = 0xf0 },
		"large file":            func(b []byte) { b[file+19] |= 1; b[file+16]-- },
		"file beyond the end":   func(b []byte) { b[file+22] = 0xff },
		"file of nothing":       func(b []byte) { clear(b[file+20 : file+23]) },
		"between files":         func(b []byte) { b[end-1] = 0 },
		"behind the last file":  func(b []byte) { b[end+fileHeader] = 0 },
		"section too long":      func(b []byte) { b[section+2]++ },
		"section too short":     func(b []byte) { b[section]-- },
		"section of nothing":    func(b []byte) { clear(b[section : section+3]) },
		"extended section":      func(b []byte) { copy(b[section:], []byte{0xff, 0xff, 0xff}) },
		"not packed":            func(b []byte) { b[section+4]++ },
		"packed otherwise":      func(b []byte) { b[section+4+18] = 2 },
		"packed data offset":    func(b []byte) { b[section+4+17] = 0xff },
		"LZMA properties":       func(b []byte) { b[lzma] = 0xff },
		"LZMA claims less":      func(b []byte) { b[lzma+5]-- },
		"LZMA claims more":      func(b []byte) { b[lzma+5]++ },
		"LZMA claims a lot":     func(b []byte) { b[lzma+9] = 1 },
		"LZMA data":             func(b []byte) { b[lzma+5000] ^= 0xff },
		"not a volume":          func(b []byte) { b[40] = 'X' },
		"no file of volumes":    func(b []byte) { b[file+18] = 1; b[file+16] += fileVolumeImageByte - 1 },
	} {
		b := bytes.Clone(good)
		spoil(b)
		got, err := Unpack(b)
		if format := (*FormatError)(nil); got != nil || !errors.As(err, &format) {
			t.Errorf("%s: %v, %v", name, got != nil, err)
		}
	}
	if _, err := Unpack(make([]byte, MaxSize+1)); err == nil {
		t.Error("took more than MaxSize")
	}
}

const fileVolumeImageByte = byte(fileVolumeImage)

// TestUnpackInnerRefusals spoils what is packed, and packs it again.
func TestUnpackInnerRefusals(t *testing.T) {
	for name, spoil := range map[string]func(tree *Tree) []section{
		"second packed section": func(tree *Tree) []section { return append(tree.outer, tree.outer[0]) },
		"no section":            func(tree *Tree) []section { return nil },
	} {
		tree := mustUnpack(t, small(t))
		outer := spoil(tree)
		v := tree.parts[0].volume
		before := v.Size() - v.Free
		v.Files[0].Body = encodeSections(outer)
		v.Free -= v.Size() - v.Free - before
		data := v.encode()
		if got, err := Unpack(append(data, tree.parts[1].volume.encode()...)); got != nil || err == nil {
			t.Errorf("%s: taken apart", name)
		}
	}
	tree := mustUnpack(t, small(t))
	addFile(tree.parts[0].volume, "11111111-2222-3333-4444-555555555555", fileVolumeImage, tree.main.Body)
	if got, err := Unpack(mustPack(t, tree)); got != nil || !errors.As(err, new(*FormatError)) {
		t.Errorf("second file of volumes: %v", err)
	}
	for name, spoil := range map[string]func(inner []byte) []byte{
		"cut":                     func(b []byte) []byte { return b[:len(b)-4] },
		"bytes behind":            func(b []byte) []byte { return append(b, 0, 0) },
		"data between sections":   func(b []byte) []byte { return append([]byte{5, 0, 0, 0x19, 1, 9, 9, 9}, b...) },
		"padding at the end":      func(b []byte) []byte { return append(b, 5, 0, 0, 0x19, 1, 0) },
		"extended header":         func(b []byte) []byte { return append(b, 0xff, 0xff, 0xff, 0x19, 12, 0, 0, 0, 1, 2, 3, 4) },
		"volume too short":        func(b []byte) []byte { b[0x80+32] -= 8; reseal(b[0x80:]); return b },
		"file in a packed volume": func(b []byte) []byte { b[0x80+0x78+16]++; return b },
	} {
		tree := mustUnpack(t, small(t))
		inner := spoil(bytes.Clone(tree.unpacked))
		v, err := tree.repacked(inner, packLZMA)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got, err := Unpack(append(v.encode(), tree.parts[1].volume.encode()...))
		if format := (*FormatError)(nil); got != nil || !errors.As(err, &format) {
			t.Errorf("%s: %v, %v", name, got != nil, err)
		}
	}
}

// TestLZMA compares with the reference implementation, where it is installed.
func TestLZMA(t *testing.T) {
	tree := mustUnpack(t, small(t))
	packed, err := packLZMA(tree.unpacked)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := unpackLZMA(packed); err != nil || !bytes.Equal(got, tree.unpacked) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
	if packed[0] != 0x5d || binary.LittleEndian.Uint32(packed[1:]) != lzmaDict || binary.LittleEndian.Uint64(packed[5:]) != uint64(len(tree.unpacked)) {
		t.Errorf("header %x", packed[:lzmaHeader])
	}
	if again, _ := packLZMA(tree.unpacked); !bytes.Equal(again, packed) {
		t.Error("packed twice, the bytes differ")
	}
	cmd := exec.Command(testtool.Program(t, "xz"), "-dc", "--format=lzma")
	cmd.Stdin = bytes.NewReader(packed)
	if got, err := cmd.Output(); err != nil || !bytes.Equal(got, tree.unpacked) {
		t.Errorf("xz: %v, %d bytes", err, len(got))
	}
}

// TestLZMABounded: what comes out is bounded by the claim, and the claim by a limit.
func TestLZMABounded(t *testing.T) {
	bomb, err := packLZMA(make([]byte, 8<<20))
	if err != nil {
		t.Fatal(err)
	}
	if len(bomb) > 100_000 {
		t.Fatalf("%d bytes", len(bomb))
	}
	claim := func(size uint64) []byte {
		b := bytes.Clone(bomb)
		binary.LittleEndian.PutUint64(b[5:], size)
		return b
	}
	for name, bad := range map[string][]byte{
		"claims less":       claim(1000),
		"claims more":       claim(8<<20 + 1),
		"claims the limit":  claim(maxUnpacked),
		"above the limit":   claim(maxUnpacked + 1),
		"claims everything": claim(1<<64 - 1),
		"empty":             {},
		"header only":       bomb[:lzmaHeader],
		"cut":               bomb[:len(bomb)-1],
		"byte behind":       append(bytes.Clone(bomb), 0),
		"huge dictionary":   append([]byte{0x5d, 0xff, 0xff, 0xff, 0xff}, bomb[5:]...),
	} {
		if got, err := unpackLZMA(bad); got != nil || err == nil {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	if got, err := unpackLZMA(bomb); err != nil || len(got) != 8<<20 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if got, err := packLZMA(nil); got != nil || err == nil {
		t.Error("packed nothing")
	}
}
