package source

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/gzip" // needs a quarter less time than the standard library's
	"github.com/klauspost/compress/zstd"

	"github.com/sealboot/sealboot/image/source/xz"
)

// Open recognizes what stands at path. An ext4 image gives ErrExt4, anything that is not
// known ErrUnknown, a path where nothing is fs.ErrNotExist.
func Open(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case info.IsDir() && isLayout(path):
		src, err := openOCI(&layoutFolder{path})
		return named(path, src, err)
	case info.IsDir():
		return &folder{path}, nil
	case isExt4(f):
		return nil, fmt.Errorf("%s: %w", path, ErrExt4)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is a %v, %w", path, info.Mode().Type(), ErrUnknown)
	}
	r, done, err := decompress(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer done()
	head, err := r.Peek(512)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !validTarHeader(head) {
		return nil, fmt.Errorf("%s: %w", path, ErrUnknown)
	}
	name := strings.TrimPrefix(strings.TrimRight(string(head[:100]), "\x00"), "./") // of the first entry
	if name != layoutFile && name != indexFile && !strings.HasPrefix(name, "blobs/") {
		name = ""
	}
	if raw := make([]byte, 6); name != "" {
		if _, err := f.ReadAt(raw, 0); err == nil && compression(raw) != none {
			return nil, fmt.Errorf("%s: %w: it is compressed as a whole: decompress it first", path, ErrOCI)
		}
	}
	if src, err := openImageArchive(path, f); src != nil || err != nil {
		return named(path, src, err)
	}
	return &archive{path}, nil
}

func named(path string, src Source, err error) (Source, error) {
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return src, nil
}

// isExt4 looks for the magic number of ext2, ext3 and ext4 (Linux Documentation/filesystems/ext4,
// super block: at 1024, s_magic at 0x38) in front of which no archive has anything else.
func isExt4(r io.ReaderAt) bool {
	var magic [2]byte
	n, _ := r.ReadAt(magic[:], 1024+0x38)
	if n != 2 || binary.LittleEndian.Uint16(magic[:]) != 0xef53 {
		return false
	}
	// The first 1024 bytes are the boot sector; in a file system that is a partition of its
	// own they do not look like an archive.
	head := make([]byte, 512)
	r.ReadAt(head, 0)
	return !validTarHeader(head) && compression(head) == none
}

type packing int

const (
	none packing = iota
	gzipped
	xzed
	zstded
)

// compression knows the first bytes of RFC 1952, of the .xz file format and of RFC 8878.
func compression(head []byte) packing {
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 8}):
		return gzipped
	case bytes.HasPrefix(head, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return xzed
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		return zstded
	}
	return none
}

// zstdWindow bounds the memory that a zstd archive may ask for: the largest window that
// `zstd --ultra -22` without --long makes.
const zstdWindow = 128 << 20

// decompress reads through the compression, if there is one. done frees what was taken.
func decompress(f io.Reader) (r *bufio.Reader, done func(), err error) {
	packed := &counted{r: f}
	in := bufio.NewReaderSize(packed, 1<<16)
	head, err := in.Peek(6)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, err
	}
	done = func() {}
	var out io.Reader
	switch compression(head) {
	case none:
		return in, done, nil
	case gzipped:
		out, err = gzip.NewReader(in)
	case xzed:
		out, err = xz.NewReader(in)
	case zstded:
		var d *zstd.Decoder
		d, err = zstd.NewReader(in, zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderConcurrency(1))
		if err == nil {
			out, done = d, d.Close
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return bufio.NewReaderSize(&expanding{r: out, in: packed, free: freeExpansion}, 1<<16), done, nil
}
