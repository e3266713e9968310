// Package source reads the root file system that an image is made from: a folder, a
// tar archive (plain, gzip, xz or zstd), or a container image (an OCI layout, as a folder or
// archive, or what `docker save` wrote). All become one walk over entries that can be
// repeated, with all that a file system keeps: owners, modes, times, symbolic and hard
// links, devices and extended attributes. Nothing is unpacked and nothing needs root.
//
// A container image's layers are laid over each other, whiteouts applied. Their digests are compared while they
// are read, so what Walk gave counts only once Walk has returned nil. An archive that expands
// like a bomb gives ErrBomb.
//
// Paths are absolute within the root ("/boot/vmlinuz"; the root itself is "/") and clean:
// no empty, "." or ".." element. An archive that names a path with ".." is refused.
// A folder is walked in the order of its names; an archive in its own order, in which
// parents may be missing and a path may come twice: the later entry counts.
//
// Whatever is not a folder is told apart by its first bytes, never by its name.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
)

// Errors that callers tell apart. What Walk's callback returns comes back wrapped too.
var (
	ErrUnknown = errors.New("neither a folder, a tar archive (plain, gzip, xz, zstd), a container image nor a disk image")
	ErrExt4    = errors.New("an ext4 image, which has no entries to walk") // Open's answer for such a file
	ErrPath    = errors.New("unsafe path")
	ErrEntry   = errors.New("entry cannot be kept") // a kind of file or attribute that the image could not hold
	ErrChanged = errors.New("changed while it was read")
)

// Source is a tree of files.
type Source interface {
	// Walk calls f for each entry. content gives exactly e.Size bytes for a regular file and
	// is nil for all others; it is valid until f returns, and f need not read it to the end.
	// Walk may be called again and then gives the same entries. It stops with the first
	// error, be it f's, the source's or the context's.
	Walk(ctx context.Context, f WalkFunc) error
}

// WalkFunc takes one entry.
type WalkFunc func(e Entry, content io.Reader) error

// Type is the kind of an entry.
type Type uint8

// The kinds of entries. Sockets are not among them: they mean nothing on a disk, and both
// kinds of source leave them out.
const (
	Regular Type = iota + 1
	Folder
	Symlink
	HardLink // another name of the entry whose path is Link, which came earlier
	CharDevice
	BlockDevice
	FIFO
)

func (t Type) String() string {
	names := [...]string{Regular: "file", Folder: "folder", Symlink: "symbolic link", HardLink: "hard link",
		CharDevice: "character device", BlockDevice: "block device", FIFO: "named pipe"}
	if int(t) < len(names) && names[t] != "" {
		return names[t]
	}
	return fmt.Sprintf("type %d", uint8(t))
}

// Entry is one name in the tree and what stands behind it. For a HardLink only Path and Link
// count: everything else belongs to the entry that it is another name of.
type Entry struct {
	Path         string
	Type         Type
	Mode         uint32 // permissions with set-user-ID 04000, set-group-ID 02000 and sticky 01000
	UID, GID     uint32
	Size         int64 // bytes of a regular file
	ModTime      time.Time
	Link         string  // Symlink: the target as written; HardLink: the other entry's Path
	Major, Minor uint32  // of a device
	Xattrs       []Xattr // in the order of their names, each name once
}

// Xattr is an extended attribute under its full name, as "security.capability". POSIX access
// control lists have the form in which Linux hands them out ("system.posix_acl_access").
type Xattr struct {
	Name  string
	Value []byte
}

// cleanPath makes a path absolute within the root.
func cleanPath(name string) (string, error) {
	if strings.ContainsRune(name, 0) {
		return "", fmt.Errorf("%w %q: it has a zero byte", ErrPath, name)
	}
	var b strings.Builder
	for element := range strings.SplitSeq(name, "/") {
		switch element {
		case "", ".":
		case "..":
			return "", fmt.Errorf("%w %q: it leads upward", ErrPath, name)
		default:
			b.WriteByte('/')
			b.WriteString(element)
		}
	}
	if b.Len() == 0 {
		return "/", nil
	}
	return b.String(), nil
}
