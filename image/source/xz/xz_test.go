package xz

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ulikunitz/xz"

	"github.com/sealboot/sealboot/internal/testtool"
)

// text compresses a little, and is no multiple of anything.
func text() []byte {
	var b []byte
	for i := range 70_001 {
		b = binary.AppendUvarint(b, uint64(i*i))
	}
	return b
}

// noise cannot be compressed: LZMA2 has it in chunks as it is.
func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// pack calls the real xz.
func pack(t testing.TB, content []byte, options ...string) []byte {
	t.Helper()
	name := filepath.Join(t.TempDir(), "content")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	// With threads, which are the default from version 5.6 on, blocks have their sizes in front.
	out, err := exec.Command(testtool.Program(t, "xz"), slices.Concat([]string{"--threads=1"}, options, []string{"-k", "-c", name})...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func unpack(packed []byte) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(packed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// small has a decoder take little memory, for tests that begin many.
const small = "--lzma2=dict=4KiB"

func TestReader(t *testing.T) {
	all := text()
	var streams, contents []byte
	for name, c := range map[string]struct {
		content []byte
		options []string
	}{
		"default": {all, nil}, "fast": {all, []string{"-0"}}, "largest": {all, []string{"-9e"}}, "empty": {nil, nil}, "one byte": {all[:1], nil},
		"no check": {all, []string{"--check=none"}}, "CRC32": {all, []string{"--check=crc32"}}, "CRC64": {all, []string{"--check=crc64"}}, "SHA-256": {all, []string{"--check=sha256"}},
		"blocks": {all, []string{"--block-size=1000"}}, "blocks with sizes": {all, []string{"-T2", "--block-size=5000"}},
		"not compressible": {noise(5000), nil},
	} {
		packed := pack(t, c.content, c.options...)
		if got, err := unpack(packed); err != nil || !bytes.Equal(got, c.content) {
			t.Errorf("%s: %d bytes, %v; want %d", name, len(got), err, len(c.content))
		}
		streams, contents = append(streams, packed...), append(contents, c.content...)
		streams = append(streams, make([]byte, 4*(len(c.options)%3))...) // stream padding
	}
	if got, err := unpack(streams); err != nil || !bytes.Equal(got, contents) {
		t.Errorf("all in one file: %d bytes, %v; want %d", len(got), err, len(contents))
	}
}

// TestSpoilt changes each byte, and cuts the file off at each: nothing of that passes.
func TestSpoilt(t *testing.T) {
	content := text()[:300]
	packed := pack(t, content, "--block-size=100", "--check=sha256", small)
	if got, err := unpack(packed); err != nil || !bytes.Equal(got, content) {
		t.Fatalf("the good file: %v", err)
	}
	for at := range packed {
		for _, bit := range []byte{1, 0x80} {
			bad := bytes.Clone(packed)
			bad[at] ^= bit
			if _, err := unpack(bad); err == nil {
				t.Errorf("with byte %d of %d changed: passed", at, len(packed))
			}
		}
		if _, err := unpack(packed[:at]); err == nil || err == io.EOF {
			t.Errorf("cut off at %d of %d: %v", at, len(packed), err)
		}
		if _, err := unpack(append(bytes.Clone(packed), packed[:at]...)); at > 0 && err == nil {
			t.Errorf("a second stream cut off at %d: passed", at)
		}
	}
	if _, err := unpack(append(bytes.Clone(packed), 0, 0)); err == nil {
		t.Error("stream padding of two bytes passed")
	}
	bad := bytes.Clone(packed)
	bad[12+1] |= 1 // two filters
	seal(bad)
	if _, err := unpack(bad); !errors.Is(err, ErrFormat) {
		t.Errorf("two filters: %v", err)
	}
}

// seal makes the checksum of the first block's header right.
func seal(packed []byte) {
	head := packed[12:][:(int(packed[12])+1)*4]
	binary.LittleEndian.PutUint32(head[len(head)-4:], crc32.ChecksumIEEE(head[:len(head)-4]))
}

// TestDictionary asks for the largest dictionary that is given, and for more: in the first block, and in a later stream.
func TestDictionary(t *testing.T) {
	good := pack(t, text()[:1000], "--check=crc32")
	place := 12 + 4 // of the dictionary's size, in a block header without sizes: size, flags, 0x21, 1
	if good[12+1] != 0 || good[12+2] != lzma2 {
		t.Fatalf("xz writes another block header: % x", good[12:24])
	}
	with := func(code byte) []byte {
		b := bytes.Clone(good)
		b[place] = code
		seal(b)
		return b
	}
	const largest = 28 // 2 << (28/2 + 11)
	if _, err := unpack(with(largest)); err != nil {
		t.Errorf("a dictionary of %d bytes: %v", MaxDictionary, err)
	}
	for code, size := range map[byte]int64{largest + 1: 96 << 20, 37: 1536 << 20, 40: 4 << 30} {
		for name, packed := range map[string][]byte{"first": with(code), "second stream": append(bytes.Clone(good), with(code)...)} {
			_, err := unpack(packed)
			if large := (*DictionaryError)(nil); !errors.As(err, &large) || large.Size != size {
				t.Errorf("%s, a dictionary of %d bytes: %v", name, size, err)
			}
		}
	}
	if _, err := unpack(with(41)); !errors.Is(err, ErrFormat) {
		t.Errorf("a size that the format does not know: %v", err)
	}
	if made := pack(t, text(), "-9"); made[place] != largest {
		t.Errorf("xz -9 asks for code %d, not %d: MaxDictionary is no longer right", made[place], largest)
	}
}

// FuzzReader: what is taken, the library takes too, and gives the same.
func FuzzReader(f *testing.F) {
	for _, options := range [][]string{{small}, {small, "--check=none", "--block-size=50"}, {small, "-T2", "--check=crc32", "--block-size=50"}} {
		f.Add(pack(f, text()[:120], options...))
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		got, err := unpack(packed)
		if err != nil {
			return
		}
		r, err := xz.NewReader(bytes.NewReader(packed))
		if err != nil {
			t.Fatal(err)
		}
		if want, err := io.ReadAll(r); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the library gives %d bytes, %v; here %d came", len(want), err, len(got))
		}
	})
}
