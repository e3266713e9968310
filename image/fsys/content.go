package fsys

import (
	"errors"
	"io"
)

// Extent is a run of a file's bytes that is stored; what lies between extents reads as zeros.
type Extent struct {
	Off, Len int64 // in the file
	Data     io.ReaderAt
	At       int64 // in Data
}

// Content reads a regular file and knows its holes. It is read by Read or by Runs, once.
type Content struct {
	Size    int64
	extents []Extent
	at      int64
}

// NewContent takes a file's extents, in ascending order and without overlap. What they have beyond size is left out.
func NewContent(size int64, extents []Extent) *Content { return &Content{Size: size, extents: extents} }

func (c *Content) Read(b []byte) (int, error) {
	if c.at >= c.Size {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), c.Size-c.at)]
	for len(c.extents) > 0 && c.extents[0].Off+c.extents[0].Len <= c.at {
		c.extents = c.extents[1:]
	}
	if len(c.extents) == 0 || c.extents[0].Off > c.at {
		if len(c.extents) > 0 {
			b = b[:min(int64(len(b)), c.extents[0].Off-c.at)]
		}
		clear(b)
		c.at += int64(len(b))
		return len(b), nil
	}
	e := c.extents[0]
	into := c.at - e.Off
	b = b[:min(int64(len(b)), e.Len-into)]
	n, err := ReadAt(e.Data, b, e.At+into)
	c.at += int64(n)
	return n, err
}

// Runs calls use for each run of bytes that is stored, in ascending order. The rest reads as zeros.
func (c *Content) Runs(use func(off int64, data io.Reader) error) error {
	for _, e := range c.extents {
		if e.Off >= c.Size {
			return nil
		}
		if err := use(e.Off, io.NewSectionReader(e.Data, e.At, min(e.Len, c.Size-e.Off))); err != nil {
			return err
		}
	}
	return nil
}

// Stored gives how many bytes are stored.
func (c *Content) Stored() int64 {
	total := int64(0)
	for _, e := range c.extents {
		total += max(0, min(e.Len, c.Size-e.Off))
	}
	return total
}

// ReadAt reads all of b; an end before that is unexpected.
func ReadAt(r io.ReaderAt, b []byte, at int64) (int, error) {
	n, err := r.ReadAt(b, at)
	if n == len(b) {
		return n, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Ranges joins adjacent ranges of bytes on their way to use.
type Ranges struct {
	Use         func(offset, length int64) error
	off, length int64
}

// Add takes a range that does not begin before the end of the last one.
func (r *Ranges) Add(off, length int64) error {
	if length > 0 && r.off+r.length == off {
		r.length += length
		return nil
	}
	if length <= 0 {
		return nil
	}
	err := r.End()
	r.off, r.length = off, length
	return err
}

// End gives the last range to use.
func (r *Ranges) End() error {
	if r.length == 0 {
		return nil
	}
	length := r.length
	r.length = 0
	return r.Use(r.off, length)
}
