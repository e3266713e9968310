package source

import (
	"errors"
	"fmt"
	"io"
)

// ErrBomb says that an archive expands beyond reason.
var ErrBomb = errors.New("decompression bomb")

// What is decompressed may be freeExpansion bytes, and beyond that maxExpansion times what was
// read: a root file system compresses to a third, one that is half zeros still ten times better
// than this allows; a bomb does it 1000 times (deflate) and more (zstd, xz).
const (
	freeExpansion = 4 << 30
	maxExpansion  = 200
)

// counted counts what was read.
type counted struct {
	r io.Reader
	n int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// expanding reads what is decompressed from in, as far as that is within reason.
type expanding struct {
	r    io.Reader
	in   *counted
	n    int64
	free int64
}

func (e *expanding) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if e.n += int64(n); e.n > e.free && (e.n-e.free)/maxExpansion > e.in.n {
		return 0, fmt.Errorf("%w: %d bytes became more than %d", ErrBomb, e.in.n, e.n)
	}
	return n, err
}
