// Package fsys walks and reads the files of a file system that is not mounted. What differs between
// file systems is a Tree, which gives inodes, names and extents; paths, symbolic links, walks and content are the
// same for all and stand here.
//
// A Tree is made from bytes that somebody else wrote, so nothing here trusts it: symbolic links lead
// nowhere but into the file system and are followed a limited number of times, names are checked, a folder that has two names ends a walk,
// and so do more names than the file system has room for.
package fsys

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// What readers of file systems tell apart, besides *FormatError.
var (
	ErrNotFound    = errors.New("no such file")
	ErrUnsupported = errors.New("file system features that are not supported")
	ErrUnclean     = errors.New("the file system was not unmounted cleanly: mount it once and unmount it")
	ErrTooLarge    = errors.New("more than a reader holds in memory")
)

// FormatError says what breaks the rules of a file system's format.
type FormatError struct {
	FileSystem string // "xfs"
	Where      string // "superblock", "inode 12"
	Problem    string
}

func (e *FormatError) Error() string { return e.FileSystem + " " + e.Where + ": " + e.Problem }

// UnsupportedError is ErrUnsupported with the features, as the file system's own tools name them.
type UnsupportedError struct {
	FileSystem string
	Features   []string
}

func (e *UnsupportedError) Error() string {
	return e.FileSystem + ": " + ErrUnsupported.Error() + ": " + strings.Join(e.Features, ", ")
}

func (e *UnsupportedError) Unwrap() error { return ErrUnsupported }

// ID is an inode: its number, and the tree that it belongs to where a file system has several.
type ID struct{ Tree, Number uint64 }

// Socket is the type of sockets. They are no entries elsewhere, since they mean nothing on a disk; but a listing shows what is there.
const Socket source.Type = 0xff

// Inode is what stands behind a name.
type Inode struct {
	ID    ID
	Links uint64
	Entry source.Entry // without Path, Link and Xattrs
	Form  any          // the file system's own
}

// Name is a name in a folder.
type Name struct {
	Name string
	ID   ID
}

// List collects a folder's names. It is bounded.
type List struct {
	Names []Name
	bytes int
}

// Add takes a name. The error is ErrTooLarge.
func (l *List) Add(name []byte, id ID) error {
	if l.bytes += len(name); len(l.Names) == namesMost || l.bytes > bytesMost {
		return fmt.Errorf("a folder's names are %w", ErrTooLarge)
	}
	l.Names = append(l.Names, Name{string(name), id})
	return nil
}

// Tree is what a file system knows. Names gives a folder's names without "." and "..", in any order.
// Its methods may be called from several goroutines.
type Tree interface {
	Inode(ID) (*Inode, error)
	Names(*Inode) ([]Name, error)
	Readlink(*Inode) (string, error)
	Xattrs(*Inode) ([]source.Xattr, error)
	Content(*Inode) (*Content, error)
	Clean() error                       // ErrUnclean
	Broken(id ID, problem string) error // a *FormatError about an inode
}

// Limits on what a tree may say.
const (
	namesMost = 1 << 18  // of one folder
	bytesMost = 16 << 20 // of one folder's names together
	nameMost  = 255      // Linux NAME_MAX
	pathMost  = 64 << 10 // deeper than any program can name (Linux PATH_MAX is 4096)
	linkHops  = 40       // Linux MAXSYMLINKS
	// LinkMost is the longest target of a symbolic link (Linux PATH_MAX).
	LinkMost = 4096
)

// Files are the files below one folder, their root. Methods may be called from several goroutines.
type Files struct {
	tree   Tree
	root   ID
	names  int64
	mounts map[ID]*Files
}

// New takes a tree's root and the number of names that it has room for.
func New(t Tree, root ID, names int64) *Files { return &Files{tree: t, root: root, names: names} }

// Mount gives the files with others in place of what is at a path: they are seen where the path leads to, and what is there itself is not. Without
// a folder there the error is ErrNotFound.
func (f *Files) Mount(path string, over *Files) (*Files, error) {
	at, err := f.Node(path)
	if err != nil {
		return nil, err
	}
	if at.n.Entry.Type != source.Folder || at.f != f {
		return nil, fmt.Errorf("%s: %w: not a folder to mount at", path, ErrNotFound)
	}
	both := *f
	both.mounts = maps.Clone(f.mounts)
	if both.mounts == nil {
		both.mounts = map[ID]*Files{}
	}
	both.mounts[at.n.ID] = over
	return &both, nil
}

// Clean says whether the file system was unmounted cleanly; the error is ErrUnclean with what is left to do.
func (f *Files) Clean() error { return f.tree.Clean() }

func (f *Files) inode(id ID) (*Node, error) {
	if over := f.mounts[id]; over != nil {
		return over.inode(over.root)
	}
	n, err := f.tree.Inode(id)
	if err != nil {
		return nil, err
	}
	return &Node{f, n}, nil
}

// Node follows a path, and symbolic links in it, the last name's too; they lead nowhere but into the file system.
// What does not exist is ErrNotFound.
func (f *Files) Node(path string) (*Node, error) { return f.find(path, true) }

// Link is Node, but gives a symbolic link as the path's last name itself.
func (f *Files) Link(path string) (*Node, error) { return f.find(path, false) }

func (f *Files) find(path string, follow bool) (*Node, error) {
	at, err := f.inode(f.root)
	if err != nil {
		return nil, err
	}
	var above []*Node
	rest, hops := elements(path), 0
	for len(rest) > 0 {
		name := rest[0]
		rest = rest[1:]
		if name == ".." {
			if last := len(above) - 1; last >= 0 {
				at, above = above[last], above[:last]
			}
			continue
		}
		child, err := at.child(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if child.n.Entry.Type == source.Symlink && (follow || len(rest) > 0) {
			target, err := child.f.tree.Readlink(child.n)
			if err != nil {
				return nil, err
			}
			if hops++; hops > linkHops {
				return nil, fmt.Errorf("%s: %w: too many symbolic links", path, ErrNotFound)
			}
			if strings.HasPrefix(target, "/") && len(above) > 0 {
				at, above = above[0], nil
			}
			rest = append(elements(target), rest...)
			continue
		}
		above = append(above, at)
		at = child
	}
	return at, nil
}

// elements gives the names of a path.
func elements(path string) []string {
	return slices.DeleteFunc(strings.Split(path, "/"), func(name string) bool { return name == "" || name == "." })
}

// ReadDir gives the names in a folder, sorted. Symbolic links in the path are followed.
func (f *Files) ReadDir(path string) ([]string, error) {
	n, err := f.Node(path)
	if err != nil {
		return nil, err
	}
	children, err := n.Children()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	list := make([]string, len(children))
	for i, c := range children {
		list[i] = c.Name
	}
	return list, nil
}

// ReadFile gives the content of a regular file of at most so many bytes. Symbolic links are followed.
func (f *Files) ReadFile(path string, most int64) ([]byte, error) {
	n, err := f.Node(path)
	if err != nil {
		return nil, err
	}
	if size := n.n.Entry.Size; size > max(most, 0) {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are read", path, size, most)
	}
	content, err := n.Open()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	data := make([]byte, content.Size)
	if _, err := io.ReadFull(content, data); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return data, nil
}

// Node is what stands under a path.
type Node struct {
	f *Files
	n *Inode
}

// ID gives its inode, and Links how many names that has. IDs of what is mounted may be the same as others.
func (d *Node) ID() ID        { return d.n.ID }
func (d *Node) Links() uint64 { return d.n.Links }

// Stat describes the node under a path of the caller's.
func (d *Node) Stat(path string) (source.Entry, error) {
	e := d.n.Entry
	e.Path = path
	var err error
	if e.Xattrs, err = d.f.tree.Xattrs(d.n); err != nil {
		return source.Entry{}, err
	}
	slices.SortFunc(e.Xattrs, func(a, b source.Xattr) int { return cmp.Compare(a.Name, b.Name) })
	for i := range e.Xattrs {
		if i > 0 && e.Xattrs[i].Name == e.Xattrs[i-1].Name {
			return source.Entry{}, d.broken("two attributes %q", e.Xattrs[i].Name)
		}
	}
	if e.Type == source.Symlink {
		if e.Link, err = d.f.tree.Readlink(d.n); err != nil {
			return source.Entry{}, err
		}
	}
	return e, nil
}

// Open reads a regular file.
func (d *Node) Open() (*Content, error) {
	if d.n.Entry.Type != source.Regular {
		return nil, fmt.Errorf("%w: not a regular file", ErrNotFound)
	}
	return d.f.tree.Content(d.n)
}

// Child is a name in a folder.
type Child struct {
	Name string
	f    *Files
	id   ID
}

// Node gives what the name leads to, be it a symbolic link.
func (c Child) Node() (*Node, error) { return c.f.inode(c.id) }

// Children lists a folder in the order of its names.
func (d *Node) Children() ([]Child, error) {
	if d.n.Entry.Type != source.Folder {
		return nil, fmt.Errorf("%w: not a folder", ErrNotFound)
	}
	names, err := d.f.tree.Names(d.n)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(names, func(a, b Name) int { return cmp.Compare(a.Name, b.Name) })
	list := make([]Child, len(names))
	for i, n := range names {
		if n.Name == "" || len(n.Name) > nameMost || n.Name == "." || n.Name == ".." || strings.ContainsAny(n.Name, "/\x00") {
			return nil, d.broken("name %q", n.Name)
		}
		if i > 0 && n.Name == names[i-1].Name {
			return nil, d.broken("name %q twice", n.Name)
		}
		list[i] = Child{n.Name, d.f, n.ID}
	}
	return list, nil
}

func (d *Node) child(name string) (*Node, error) {
	children, err := d.Children()
	if err != nil {
		return nil, err
	}
	i, found := slices.BinarySearchFunc(children, name, func(c Child, name string) int { return cmp.Compare(c.Name, name) })
	if !found {
		return nil, fmt.Errorf("%w: %q", ErrNotFound, name)
	}
	return children[i].Node()
}

func (d *Node) broken(format string, args ...any) error {
	return d.f.tree.Broken(d.n.ID, fmt.Sprintf(format, args...))
}
