// Package fsystest holds what the tests of file-system readers share: images that keep only blocks
// that are not zero, trees of files that use what file systems have, and listings that are compared.
package fsystest

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"testing"
)

const blockSize = 4096

// Image is an image of which only the blocks are kept that are not zero.
type Image struct {
	Size   int64
	blocks map[int64][]byte
}

// Load reads an image that Save wrote: gzip over the size, and for each block its number and its bytes.
func Load(name string) (*Image, error) {
	packed, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	m := &Image{blocks: map[int64][]byte{}}
	if err := binary.Read(z, binary.LittleEndian, &m.Size); err != nil {
		return nil, err
	}
	for {
		var number int64
		b := make([]byte, blockSize)
		if err := binary.Read(z, binary.LittleEndian, &number); errors.Is(err, io.EOF) {
			return m, nil
		} else if err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(z, b); err != nil {
			return nil, err
		}
		m.blocks[number] = b
	}
}

// Save writes the blocks of an image file that are not zero.
func Save(t testing.TB, image, name string) {
	t.Helper()
	raw, err := os.Open(image)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	info, err := raw.Stat()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	z, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	write := func(v any) {
		if err := binary.Write(z, binary.LittleEndian, v); err != nil {
			t.Fatal(err)
		}
	}
	write(info.Size())
	zero, b := make([]byte, blockSize), make([]byte, blockSize)
	for at := int64(0); at < info.Size(); at += blockSize {
		clear(b)
		if _, err := raw.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		if !bytes.Equal(b, zero) {
			write(at / blockSize)
			write(b)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// ReadAt is that of io.ReaderAt.
func (m *Image) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 || at > m.Size {
		return 0, fmt.Errorf("read at %d of %d", at, m.Size)
	}
	n := 0
	for n < len(b) && at+int64(n) < m.Size {
		block, in := (at+int64(n))/blockSize, (at+int64(n))%blockSize
		part := b[n:min(len(b), n+int(blockSize-in))]
		part = part[:min(int64(len(part)), m.Size-at-int64(n))]
		if have := m.blocks[block]; have != nil {
			copy(part, have[in:])
		} else {
			clear(part)
		}
		n += len(part)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt is that of io.WriterAt, within the size. Copies of the image do not see it.
func (m *Image) WriteAt(b []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(b)) > m.Size {
		return 0, fmt.Errorf("write at %d of %d", at, m.Size)
	}
	for n := 0; n < len(b); {
		block, in := (at+int64(n))/blockSize, (at+int64(n))%blockSize
		changed := make([]byte, blockSize)
		copy(changed, m.blocks[block])
		n += copy(changed[in:], b[n:])
		m.blocks[block] = changed
	}
	return len(b), nil
}

// Copy gives an image that can be changed for itself.
func (m *Image) Copy() *Image { return &Image{m.Size, maps.Clone(m.blocks)} }

// Blocks gives where blocks that are not zero lie, in ascending order.
func (m *Image) Blocks() []int64 {
	list := slices.Sorted(maps.Keys(m.blocks))
	for i := range list {
		list[i] *= blockSize
	}
	return list
}
