package fsystest

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// Spoiler changes one thing in an image and mends its checksum.
type Spoiler struct {
	T     testing.TB
	Image *Image
	Mend  func(at int64) // computes the checksum anew that a byte belongs to
}

// Put changes bytes.
func (s *Spoiler) Put(at int64, b ...byte) {
	s.T.Helper()
	s.Damage(at, b...)
	s.Mend(at)
}

// Damage changes bytes and mends nothing.
func (s *Spoiler) Damage(at int64, b ...byte) {
	s.T.Helper()
	if _, err := s.Image.WriteAt(b, at); err != nil {
		s.T.Fatal(err)
	}
}

// Get gives bytes.
func (s *Spoiler) Get(at int64, n int) []byte {
	s.T.Helper()
	b := make([]byte, n)
	if _, err := s.Image.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
		s.T.Fatal(err)
	}
	return b
}

// ReadAll reads all that a file system has: what of it is in use, and every file.
func ReadAll(allocated func(func(offset, length int64) error) error, files source.Source) error {
	if err := allocated(func(int64, int64) error { return nil }); err != nil {
		return err
	}
	return files.Walk(context.Background(), func(_ source.Entry, content io.Reader) error {
		if content == nil {
			return nil
		}
		_, err := io.Copy(io.Discard, content)
		return err
	})
}

// Refused wants an error: a sentinel, or one of the type that want points to, with a problem in its words; want nil wants none.
func Refused(t testing.TB, err error, want any, problem string) {
	t.Helper()
	if want == nil {
		if err != nil {
			t.Error(err)
		}
		return
	}
	if sentinel, ok := want.(error); ok && !errors.Is(err, sentinel) {
		t.Errorf("%v, not %v", err, sentinel)
	} else if !ok && !errors.As(err, want) {
		t.Errorf("%v is no %T", err, want)
	}
	if err != nil && !strings.Contains(err.Error(), problem) {
		t.Errorf("%v, not %q", err, problem)
	}
}

// Must gives what came without an error.
func Must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
