package ext4

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sealboot/sealboot/image/fsys"
)

// What the writer refuses.
var (
	ErrTree  = errors.New("the tree cannot be stored")                 // names, links, kinds
	ErrXattr = errors.New("extended attributes that ext4 cannot hold") // unknown name, too much of them
)

var errClosed = errors.New("the file system is complete")

// SizeError says that a tree does not fit.
type SizeError struct {
	Size   int64  // bytes asked for
	Needed int64  // bytes, a multiple of 1 MiB, in which the tree would fit
	Inodes uint32 // inodes that Size has
	Files  uint32 // inodes that the tree takes
}

func (e *SizeError) Error() string {
	if e.Files > e.Inodes {
		return fmt.Sprintf("the tree needs %d inodes and %d bytes of file system (%d MiB); there are %d inodes and %d bytes (%d MiB)",
			e.Files, e.Needed, e.Needed>>20, e.Inodes, e.Size, e.Size>>20)
	}
	return fmt.Sprintf("the tree needs a file system of %d bytes (%d MiB), not %d (%d MiB)", e.Needed, e.Needed>>20, e.Size, e.Size>>20)
}

// What the reader tells apart, besides *FormatError.
var (
	ErrNotExt4     = errors.New("no ext4 file system")
	ErrUnsupported = errors.New("ext4 features that are not supported")
	ErrUnclean     = errors.New("the file system was not unmounted cleanly: run e2fsck on it first")
	ErrNotFound    = fsys.ErrNotFound
)

// FormatError says what breaks the rules of the format.
type FormatError struct {
	Where   string // "superblock", "group 3", "inode 12", "folder inode 2, block 40"
	Problem string
}

func (e *FormatError) Error() string { return "ext4 " + e.Where + ": " + e.Problem }

func broken(where, format string, args ...any) error {
	return &FormatError{Where: where, Problem: fmt.Sprintf(format, args...)}
}

// UnsupportedError is ErrUnsupported with the features, as tune2fs and dumpe2fs name them.
type UnsupportedError struct{ Features []string }

func (e *UnsupportedError) Error() string {
	return ErrUnsupported.Error() + ": " + strings.Join(e.Features, ", ")
}

func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }
