package ovmf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestParseAmdSev is a premise of the design: what a distribution's build for AMD SEV sets aside.
func TestParseAmdSev(t *testing.T) {
	img, err := Parse(amdSev(t))
	if err != nil {
		t.Fatal(err)
	}
	secret, ok := img.SecretArea()
	if !ok || secret.Size < 0xc00 {
		t.Errorf("secret area %+v, %v", secret, ok)
	}
	hashes, ok := img.HashesArea()
	if !ok || hashes.Size < 176 {
		t.Errorf("hashes area %+v, %v", hashes, ok)
	}
	if eip, ok := img.ResetEIP(); !ok || eip == 0 {
		t.Errorf("reset vector %#x, %v", eip, ok)
	}
	for _, want := range []SectionType{SecMem, Secrets, CPUID, KernelHashes} {
		if !slices.ContainsFunc(img.Metadata(), func(s Section) bool { return s.Type == want }) {
			t.Errorf("no metadata section %v", want)
		}
	}
	if img.Base()+uint64(len(img.Bytes())) != 1<<32 {
		t.Errorf("base %#x", img.Base())
	}
}

func TestParseSmall(t *testing.T) {
	img, err := Parse(small(t))
	if err != nil {
		t.Fatal(err)
	}
	secret, _ := img.SecretArea()
	hashes, _ := img.HashesArea()
	eip, _ := img.ResetEIP()
	if (secret != Area{0x810000, 0xc00}) || (hashes != Area{0x810c00, 0x400}) || eip != 0x80b004 || len(img.Entries()) != 6 {
		t.Errorf("%+v, %+v, %#x, %d entries", secret, hashes, eip, len(img.Entries()))
	}
	want := []Section{
		{0x800000, 0x9000, SecMem}, {0x80a000, 0x3000, SecMem}, {0x80d000, 0x1000, Secrets}, {0x80e000, 0x1000, CPUID},
		{0x80f000, 0x1000, SVSMCAA}, {0x811000, 0x1f000, SecMem}, {0x810000, 0x1000, KernelHashes},
	}
	if !slices.Equal(img.Metadata(), want) {
		t.Errorf("metadata %+v", img.Metadata())
	}
}

// TestParsePlain: builds for everybody have the table, and say that they take no secret.
func TestParsePlain(t *testing.T) {
	data, err := os.ReadFile(testtool.File(t, "usr/share/ovmf/OVMF.fd", "usr/share/OVMF/OVMF_CODE_4M.fd"))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	if a, ok := img.SecretArea(); ok || a != (Area{}) {
		t.Errorf("secret area %+v", a)
	}
	if a, ok := img.HashesArea(); ok || a != (Area{}) {
		t.Errorf("hashes area %+v", a)
	}
}

// patch gives the small image with bytes changed at an offset from its end.
func patch(t testing.TB, fromEnd int, with ...byte) []byte {
	t.Helper()
	b := bytes.Clone(small(t))
	copy(b[len(b)-fromEnd:], with)
	return b
}

func u32(v uint32) []byte { return binary.LittleEndian.AppendUint32(nil, v) }

// Offsets from the end of the small image: the table's trailer, and entries in front of it.
const (
	trailerAt   = tableEnd + entryHeader // u16 length, GUID
	resetEntry  = trailerAt + 22         // u32, u16 length, GUID
	secretEntry = resetEntry + 26
	hashesEntry = secretEntry + 26
	metaEntry   = hashesEntry + 22
)

// metadataAtTheEnd gives the small image with metadata that announces more sections than the image has bytes left.
func metadataAtTheEnd(t testing.TB) []byte {
	b := patch(t, metaEntry, u32(metadataHeader)...)
	copy(b[len(b)-metadataHeader:], "ASEV")
	for i, v := range []uint32{metadataHeader + metadataSection, 1, 1} {
		copy(b[len(b)-metadataHeader+4+4*i:], u32(v))
	}
	return b
}

func TestParseRefusals(t *testing.T) {
	img, err := Parse(small(t))
	if err != nil {
		t.Fatal(err)
	}
	meta := func() int { v, _, _ := img.word(MetadataGUID); return int(v) }()
	resetGUID := ResetVectorGUID
	for name, bad := range map[string][]byte{
		"table longer than the image": patch(t, trailerAt, 0xff, 0xff)[60000:],
		"table shorter than itself":   patch(t, trailerAt, 17, 0),
		"bytes before the first":      patch(t, trailerAt, 18+5, 0),
		"entry of nothing":            patch(t, resetEntry-4, 0, 0),
		"entry without its header":    patch(t, resetEntry-4, 17, 0),
		"entry longer than the table": patch(t, resetEntry-4, 0xff, 0xff),
		"second entry for a GUID":     patch(t, secretEntry-8-2, resetGUID[:]...),
		"area of base 0":              patch(t, secretEntry, u32(0)...),
		"area of size 0":              patch(t, secretEntry-4, u32(0)...),
		"area above 4 GiB":            patch(t, hashesEntry-4, u32(0xffffffff)...),
		"metadata before the image":   patch(t, metaEntry, u32(0x7fffffff)...),
		"metadata behind the image":   patch(t, metaEntry, u32(15)...),
		"metadata of another name":    patch(t, meta, 'A', 'S', 'E', 'W'),
		"metadata version 2":          patch(t, meta-8, 2),
		"metadata length":             patch(t, meta-4, 0xff),
		"metadata count":              patch(t, meta-12, u32(0x20000000)...),
		"metadata count and length":   patch(t, meta-4, append(u32(16+12*1000), append(u32(1), u32(1000)...)...)...),
		"metadata beyond the end":     metadataAtTheEnd(t),
		"section not at a page":       patch(t, meta-16, u32(0x800001)...),
		"section above 4 GiB":         patch(t, meta-20, u32(0xfffff000)...),
		"too large":                   make([]byte, MaxSize+1),
	} {
		got, err := Parse(bad)
		if format := (*FormatError)(nil); got != nil || !errors.As(err, &format) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, bad := range map[string][]byte{
		"nothing":     {},
		"short":       small(t)[:49],
		"other GUID":  patch(t, trailerAt-2, 0),
		"cut at end":  small(t)[:len(small(t))-1],
		"erased":      bytes.Repeat([]byte{0xff}, 4096),
		"only zeroes": make([]byte, 4096),
	} {
		if got, err := Parse(bad); got != nil || !errors.Is(err, ErrNotOVMF) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// TestParseEveryTruncation cuts the image from its start: the table must never be read beyond it.
func TestParseEveryTruncation(t *testing.T) {
	data := small(t)
	parsed := 0
	for size := range 3000 {
		if _, err := Parse(data[len(data)-size:]); err == nil {
			parsed++
		}
	}
	if parsed == 0 || parsed == 3000 {
		t.Errorf("%d of 3000 parsed", parsed)
	}
}
