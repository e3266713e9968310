package initramfs

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/sealboot/sealboot/image/source"
)

// file is a member of a test's archive.
type file struct {
	path    string
	content []byte
}

// tree makes a tar archive of the files, in their order, and opens it.
func tree(t *testing.T, files ...file) source.Source {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.path, Mode: 0o644, Size: int64(len(f.content))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(f.content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "root.tar")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	src, err := source.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// ko makes the smallest ELF file that has a section .modinfo with the given fields.
func ko(fields ...string) []byte {
	var info []byte
	for _, f := range fields {
		info = append(append(info, f...), 0)
	}
	return elfFile(elf.ET_REL, nil, info)
}

// program makes an ELF executable, with a request for a dynamic loader if interp is set.
func program(interp bool) []byte {
	kind := elf.PT_LOAD
	if interp {
		kind = elf.PT_INTERP
	}
	return elfFile(elf.ET_EXEC, []elf.Prog64{{Type: uint32(kind)}}, nil)
}

func elfFile(kind elf.Type, progs []elf.Prog64, info []byte) []byte {
	const headerSize, progSize, sectionSize = 64, 56, 64
	names := []byte("\x00.modinfo\x00.shstrtab\x00")
	data := uint64(headerSize + progSize*len(progs))
	sections := data + uint64(len(info)+len(names))
	h := elf.Header64{
		Type: uint16(kind), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: headerSize,
		Phoff: headerSize, Phentsize: progSize, Phnum: uint16(len(progs)),
		Shoff: sections, Shentsize: sectionSize, Shnum: 3, Shstrndx: 2,
	}
	copy(h.Ident[:], "\x7fELF\x02\x01\x01")
	var b bytes.Buffer
	for _, part := range []any{h, progs, info, names, []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: data, Size: uint64(len(info))},
		{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: data + uint64(len(info)), Size: uint64(len(names))},
	}} {
		binary.Write(&b, binary.LittleEndian, part)
	}
	return b.Bytes()
}

// pack compresses as the suffix of the file's name says.
func pack(t *testing.T, suffix string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	var err error
	switch suffix {
	case "":
		return content
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".xz":
		w, err = xz.NewWriter(&b)
	case ".zst":
		w, err = zstd.NewWriter(&b)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
