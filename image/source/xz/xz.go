// Package xz reads .xz files (The .xz File Format, version 1.0.4; "the format" below) in bounded memory, whatever they hold. A block
// says itself how large a dictionary it takes, up to 4 GiB: one above MaxDictionary is refused before anything is allocated. The
// index of blocks is not kept, but compared as it is read.
//
// As in github.com/ulikunitz/xz, whose LZMA2 decoder this uses, LZMA2 is the only filter; the checks are none, CRC32, CRC64 and SHA-256.
// All of a file is checked: what was read is right when io.EOF has come.
package xz

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"io"
	"runtime"

	"github.com/ulikunitz/xz/lzma"
)

// MaxDictionary bounds the memory that a file may ask for: what `xz -9` makes, the largest of its presets (xz(1)).
const MaxDictionary = 64 << 20

// DictionaryError says that a file asks for too much memory.
type DictionaryError struct{ Size int64 }

func (e *DictionaryError) Error() string {
	return fmt.Sprintf("its xz dictionary has %d MiB, more than %d MiB: compress it anew, with xz -9 at most", e.Size>>20, MaxDictionary>>20)
}

// ErrFormat says that a file is no right .xz file, or of a kind that is not read.
var ErrFormat = errors.New("not a sound xz file")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrFormat, fmt.Sprintf(format, args...))
}

var (
	headerMagic = []byte{0xfd, '7', 'z', 'X', 'Z', 0} // the format, 2.1.1.1
	footerMagic = []byte("YZ")                        // 2.1.2.4
)

const (
	footerSize = 12
	lzma2      = 0x21 // 5.3.1

	// Bits of a block header's flags (3.1.2).
	moreFilters      = 0x03
	reservedFlags    = 0x3c
	hasCompressed    = 0x40
	hasUncompressed  = 0x80
	largestSizeBytes = 9 // of a number (1.2)
)

// Reader reads what a file holds, of all its streams. Nothing behind an error is read.
type Reader struct {
	in    *counted
	flags [2]byte // of the stream
	err   error

	// Of the block:
	block        io.Reader // nil: none is open
	check        hash.Hash // nil: there is none
	start, data  int64     // where its header and its compressed data begin
	plain        int64     // bytes that came out
	packed, size int64     // as its header says, or -1

	// Of the stream's blocks, what the index must say:
	blocks, indexBytes int64
	index              hash.Hash
}

// counted counts what is read.
type counted struct {
	*bufio.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counted) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

// NewReader reads the first stream's header.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{in: &counted{Reader: bufio.NewReader(r)}}
	if err := x.begin(); err != nil {
		return nil, cut(err)
	}
	return x, nil
}

// cut makes of an end within something an error.
func cut(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (r *Reader) take(n int) ([]byte, error) {
	b := make([]byte, n)
	_, err := io.ReadFull(r.in, b)
	return b, err
}

func (r *Reader) Read(p []byte) (int, error) {
	for r.err == nil && len(p) > 0 {
		if r.block == nil {
			r.err = r.next()
			continue
		}
		n, err := r.block.Read(p)
		r.plain += int64(n)
		if r.check != nil {
			r.check.Write(p[:n])
		}
		switch {
		case err == io.EOF:
			r.err = cut(r.endBlock())
		case err != nil:
			r.err = cut(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, r.err
}

// begin reads a stream's header (2.1.1).
func (r *Reader) begin() error {
	head, err := r.take(12)
	switch {
	case err != nil:
		return err
	case !bytes.HasPrefix(head, headerMagic) || crc32.ChecksumIEEE(head[6:8]) != binary.LittleEndian.Uint32(head[8:]):
		return broken("stream header")
	}
	r.flags = [2]byte(head[6:])
	switch r.flags { // 2.1.1.2
	case [2]byte{0, 0}:
		r.check = nil
	case [2]byte{0, 1}:
		r.check = crc32.NewIEEE()
	case [2]byte{0, 4}:
		r.check = crc64.New(crc64.MakeTable(crc64.ECMA))
	case [2]byte{0, 10}:
		r.check = sha256.New()
	default:
		return broken("check of type %#x", r.flags)
	}
	r.blocks, r.indexBytes, r.index = 0, 0, sha256.New()
	return nil
}

// next opens a block, or reads a stream's end and begins the next one. The end of the file is io.EOF.
func (r *Reader) next() error {
	r.start = r.in.n
	size, err := r.in.ReadByte()
	if err != nil {
		return cut(err)
	}
	if size != 0 {
		return cut(r.openBlock(size))
	}
	if err := r.end(); err != nil {
		return cut(err)
	}
	for { // stream padding (2.2)
		word, err := r.in.Peek(4)
		if len(word) == 0 && errors.Is(err, io.EOF) {
			return io.EOF
		} else if err != nil {
			return cut(err)
		}
		if !allZero(word) {
			return cut(r.begin())
		}
		r.in.Discard(4)
	}
}

// openBlock reads the rest of a block's header (3.1).
func (r *Reader) openBlock(size byte) error {
	rest, err := r.take(int(size)*4 + 3)
	if err != nil {
		return err
	}
	head := append([]byte{size}, rest...)
	head, sum := head[:len(head)-4], head[len(head)-4:]
	if crc32.ChecksumIEEE(head) != binary.LittleEndian.Uint32(sum) {
		return broken("checksum of a block header")
	}
	flags, fields := head[1], head[2:]
	if flags&(reservedFlags|moreFilters) != 0 {
		return broken("block with flags %#x: LZMA2 is the only filter that is read", flags)
	}
	number := func(present byte) int64 {
		if flags&present == 0 {
			return -1
		}
		n, length := binary.Uvarint(fields)
		if length <= 0 || length > largestSizeBytes {
			fields = nil
			return -1
		}
		fields = fields[length:]
		return int64(n)
	}
	r.packed, r.size = number(hasCompressed), number(hasUncompressed)
	if len(fields) < 3 || fields[0] != lzma2 || fields[1] != 1 || fields[2] > 40 || !allZero(fields[3:]) {
		return broken("block header")
	}
	dictionary := int64(2|fields[2]&1) << (fields[2]/2 + 11) // 5.3.1
	if dictionary > MaxDictionary {
		return &DictionaryError{dictionary}
	}
	if dictionary > 8<<20 { // more than xz's default: the one before goes first, so that they are not there both
		runtime.GC()
	}
	r.data, r.plain = r.in.n, 0
	if r.check != nil {
		r.check.Reset()
	}
	r.block, err = lzma.Reader2Config{DictCap: int(max(dictionary, lzma.MinDictCap))}.NewReader2(r.in)
	return err
}

// endBlock compares a block's sizes and its check (3.3, 3.4).
func (r *Reader) endBlock() error {
	packed, sum := r.in.n-r.data, []byte(nil)
	if r.check != nil {
		sum = r.check.Sum(nil)
		if r.check.Size() < sha256.Size { // CRCs are little-endian, and not so in package hash
			for i, j := 0, len(sum)-1; i < j; i, j = i+1, j-1 {
				sum[i], sum[j] = sum[j], sum[i]
			}
		}
	}
	padding, err := r.take(int(-packed & 3))
	if err != nil {
		return err
	}
	got, err := r.take(len(sum))
	switch {
	case err != nil:
		return err
	case r.packed >= 0 && r.packed != packed || r.size >= 0 && r.size != r.plain || !allZero(padding):
		return broken("size of a block")
	case !bytes.Equal(got, sum):
		return broken("check of a block")
	}
	record := binary.AppendUvarint(nil, uint64(r.data-r.start+packed+int64(len(sum))))
	record = binary.AppendUvarint(record, uint64(r.plain))
	r.index.Write(record)
	r.blocks, r.indexBytes, r.block = r.blocks+1, r.indexBytes+int64(len(record)), nil
	return nil
}

// end reads a stream's index behind its first byte (4) and its footer (2.1.2).
func (r *Reader) end() error {
	sum := crc32.NewIEEE()
	sum.Write([]byte{0})
	count, err := r.take(len(binary.AppendUvarint(nil, uint64(r.blocks))))
	if err != nil {
		return err
	}
	records := sha256.New()
	sum.Write(count)
	if _, err := io.CopyN(io.MultiWriter(records, sum), r.in, r.indexBytes); err != nil {
		return err
	}
	padding, err := r.take(int(-(r.in.n - r.start) & 3))
	if err != nil {
		return err
	}
	sum.Write(padding)
	size := r.in.n - r.start + 4
	foot, err := r.take(4 + footerSize)
	if err != nil {
		return err
	}
	told, foot := foot[:4], foot[4:]
	switch {
	case !bytes.Equal(count, binary.AppendUvarint(nil, uint64(r.blocks))), !bytes.Equal(records.Sum(nil), r.index.Sum(nil)), !allZero(padding),
		sum.Sum32() != binary.LittleEndian.Uint32(told):
		return broken("index")
	case crc32.ChecksumIEEE(foot[4:10]) != binary.LittleEndian.Uint32(foot), (int64(binary.LittleEndian.Uint32(foot[4:]))+1)*4 != size,
		[2]byte(foot[8:]) != r.flags, !bytes.Equal(foot[10:], footerMagic):
		return broken("stream footer")
	}
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}
