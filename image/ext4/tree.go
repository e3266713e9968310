package ext4

import (
	"fmt"
	"strings"
)

// node is a name in the tree. Hard links are several nodes with one inode.
type node struct {
	inode    *inode
	parent   *node
	children map[string]*node // of a folder
}

func (n *node) isFolder() bool { return n.inode.mode&modeKind == modeFolder }

// linkHops is how many symbolic links one path may lead through (Linux MAXSYMLINKS).
const linkHops = 40

// walk follows a path to a folder; symbolic links within the tree are followed and never lead
// out of it. make is called for what is missing, or nil is given for it.
func (w *Writer) walk(path string, make func(parent *node, name string) *node) (*node, error) {
	at, hops := w.root, 0
	for rest := path; rest != ""; {
		var name string
		name, rest, _ = strings.Cut(rest, "/")
		switch name {
		case "", ".":
			continue
		case "..": // only within the target of a link
			at = at.parent
			continue
		}
		if len(name) > nameMax {
			return nil, fmt.Errorf("%w: a name of %d bytes", ErrTree, len(name))
		}
		child := at.children[name]
		if child == nil && make != nil {
			child = make(at, name)
		}
		switch {
		case child == nil:
			return nil, nil
		case child.isFolder():
			at = child
		case child.inode.target != "":
			if hops++; hops > linkHops {
				return nil, fmt.Errorf("%w: too many symbolic links in %s", ErrTree, path)
			}
			if strings.HasPrefix(child.inode.target, "/") {
				at = w.root
			}
			rest = child.inode.target + "/" + rest
		default:
			return nil, fmt.Errorf("%w: %s leads through %q, which is no folder", ErrTree, path, name)
		}
	}
	return at, nil
}

// cut parts a path into its folder and last name.
func cut(path string) (folder, name string, err error) {
	i := strings.LastIndexByte(path, '/')
	folder, name = path[:max(i, 0)], path[i+1:]
	switch {
	case i < 0 || name == "" || name == "." || name == "..":
		return "", "", fmt.Errorf("%w: the path %q", ErrTree, path)
	case len(name) > nameMax:
		return "", "", fmt.Errorf("%w: a name of %d bytes, %d at most", ErrTree, len(name), nameMax)
	case strings.IndexByte(name, 0) >= 0:
		return "", "", fmt.Errorf("%w: a zero byte in the path %q", ErrTree, path)
	}
	return folder, name, nil
}

// drop takes a name out of the tree. The inode goes with its last name.
func (w *Writer) drop(parent *node, name string) error {
	old := parent.children[name]
	if len(old.children) > 0 {
		return fmt.Errorf("%w: a folder that is not empty cannot be replaced by something else", ErrTree)
	}
	if old == w.lostFound {
		return fmt.Errorf("%w: lost+found must be a folder", ErrTree)
	}
	delete(parent.children, name)
	if old.isFolder() {
		parent.inode.links--
	} else if old.inode.links--; old.inode.links > 0 {
		return nil
	}
	w.release(old.inode)
	return nil
}

// release frees an inode and its blocks.
func (w *Writer) release(n *inode) {
	for _, s := range n.owned {
		w.alloc.giveBack(s)
	}
	w.inodes[n.number-1] = nil
	w.freeNumbers = append(w.freeNumbers, n.number)
}

// hang puts a new inode into the tree.
func (w *Writer) hang(parent *node, name string, n *inode) *node {
	child := &node{inode: n, parent: parent}
	if child.isFolder() {
		child.children = map[string]*node{}
		parent.inode.links++
	}
	parent.children[strings.Clone(name)] = child
	return child
}

// newInode gives an inode the lowest number that was given back last, or the next.
func (w *Writer) newInode(mode uint16, at timestamp) *inode {
	n := &inode{mode: mode, links: 1, time: at}
	if mode&modeKind == modeFolder {
		n.links = 2
	}
	if last := len(w.freeNumbers) - 1; last >= 0 {
		n.number = w.freeNumbers[last]
		w.freeNumbers = w.freeNumbers[:last]
		w.inodes[n.number-1] = n
		return n
	}
	w.inodes = append(w.inodes, n)
	n.number = uint32(len(w.inodes))
	return n
}
