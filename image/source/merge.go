package source

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
)

// ErrMerge says that layers do not make one tree.
var ErrMerge = errors.New("layers do not fit together")

// Bounds of what merging keeps in memory: names and kinds of entries.
const (
	maxMerged = 2 << 20   // entries of all layers together
	maxNames  = 256 << 20 // bytes of their names
	linkHops  = 40        // symbolic links on one path, as Linux (MAXSYMLINKS)
)

// layer is a source that lies over others.
type layer struct {
	src       Source
	whiteouts bool   // its ".wh." names delete what lies below (OCI image specification, layer.md, "Whiteouts")
	add       bool   // its folders leave those below as they are
	hides     string // a folder whose content in the layers below is hidden
}

// merged is a stack of layers, the lowest first, seen as one tree. A first walk reads names alone and settles
// what each layer has in the end; Walk then gives that in the order of the layers, so no content is kept.
//
// A name is looked up as in a root of its own: symbolic links in the folders of a path, which lower
// layers may have made, are followed, and end at the top instead of leading out of it. The last
// element is never followed: an entry replaces a link.
type merged struct {
	layers []layer

	mu    sync.Mutex
	taken []map[int]*node // by layer and number of entry: what is kept of it
}

// node is what one or several names stand for.
type node struct {
	kind         Type
	link         string // target of a symbolic link
	layer, index int    // the entry that describes it; index -1: none does
	path         uint64 // checksum of that entry's path
	names        []string
}

// name is a place in the tree.
type name struct {
	node     *node
	up       *name
	children map[string]*name
	layer    int // the last that made or named it
	pruned   int // the last whose whiteouts were applied here, plus one
}

func (m *merged) Walk(ctx context.Context, f WalkFunc) error {
	m.mu.Lock()
	taken, err := m.taken, error(nil)
	if taken == nil {
		taken, err = m.settle(ctx)
		m.taken = taken
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	for i, l := range m.layers {
		index := -1
		left := len(taken[i])
		err := l.src.Walk(ctx, func(e Entry, content io.Reader) error {
			index++
			n := taken[i][index]
			if n == nil {
				return nil
			}
			if n.kind != e.Type || n.path != checksum(e.Path) {
				return fmt.Errorf("%s: %w", e.Path, ErrChanged)
			}
			left--
			for j, p := range n.names {
				if j == 0 {
					e.Path = p
				} else {
					e, content = Entry{Path: p, Type: HardLink, Link: n.names[0]}, nil
				}
				if err := f(e, content); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if left != 0 {
			return fmt.Errorf("layer %d: %w", i+1, ErrChanged)
		}
	}
	return nil
}

func checksum(path string) uint64 {
	h := fnv.New64a()
	io.WriteString(h, path)
	return h.Sum64()
}

// settle reads the names of all layers.
func (m *merged) settle(ctx context.Context) ([]map[int]*node, error) {
	t := &merging{root: &name{node: &node{kind: Folder, index: -1}, children: map[string]*name{}}}
	for i, l := range m.layers {
		if l.hides != "" {
			hidden, err := t.folder(l.hides, false)
			if err != nil {
				return nil, err
			}
			if hidden != nil {
				hidden.prune(i)
			}
		}
		index := -1
		err := l.src.Walk(ctx, func(e Entry, _ io.Reader) error {
			index++
			if t.entries++; t.entries > maxMerged {
				return fmt.Errorf("%w: more than %d entries", ErrMerge, maxMerged)
			}
			if t.bytes += len(e.Path) + len(e.Link); t.bytes > maxNames {
				return fmt.Errorf("%w: names of more than %d bytes", ErrMerge, maxNames)
			}
			t.layer, t.index = i, index
			return t.apply(l, e)
		})
		if err != nil {
			return nil, err
		}
	}
	taken := make([]map[int]*node, len(m.layers))
	for i := range taken {
		taken[i] = map[int]*node{}
	}
	t.root.collect("/", taken)
	return taken, nil
}

// collect gives every node its names, in order, and notes which entries are kept.
func (n *name) collect(at string, taken []map[int]*node) {
	if n.node.index >= 0 {
		n.node.names = append(n.node.names, at)
		taken[n.node.layer][n.node.index] = n.node
	}
	for _, child := range slices.Sorted(maps.Keys(n.children)) {
		n.children[child].collect(path.Join(at, child), taken)
	}
}

type merging struct {
	root           *name
	layer, index   int // the entry at hand
	entries, bytes int
}

const (
	whiteout = ".wh."
	opaque   = ".wh..wh..opq"
)

func (t *merging) apply(l layer, e Entry) error {
	if e.Path == "/" {
		if e.Type != Folder {
			return fmt.Errorf("%w: the root is a %v", ErrMerge, e.Type)
		}
		if !l.add || t.root.node.index < 0 {
			t.root.node = t.node(e)
		}
		return nil
	}
	dir, base := path.Split(e.Path)
	if l.whiteouts && strings.HasPrefix(base, whiteout) {
		return t.whiteout(dir, base)
	}
	parent, err := t.folder(dir, true)
	if err != nil {
		return err
	}
	old := parent.children[base]
	switch {
	case e.Type == HardLink:
		target, err := t.lookup(e.Link)
		if err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
		if target != old {
			parent.children[base] = &name{node: target.node, up: parent, layer: t.layer}
		}
	case old != nil && old.node.kind == Folder && e.Type == Folder:
		if !l.add || old.node.index < 0 {
			old.node = t.node(e)
		}
		old.layer = t.layer
	case l.add && old != nil && (old.node.kind == Folder) != (e.Type == Folder):
		return fmt.Errorf("%w: %s is a %v, and a %v is to be put there", ErrMerge, e.Path, old.node.kind, e.Type)
	default:
		made := &name{node: t.node(e), up: parent, layer: t.layer}
		if e.Type == Folder {
			made.children = map[string]*name{}
		}
		parent.children[base] = made
	}
	return nil
}

func (t *merging) node(e Entry) *node {
	n := &node{kind: e.Type, layer: t.layer, index: t.index, path: checksum(e.Path)}
	if e.Type == Symlink {
		n.link = e.Link
	}
	return n
}

// whiteout deletes what lower layers have, whatever the order of this layer's entries.
func (t *merging) whiteout(dir, base string) error {
	victim := strings.TrimPrefix(base, whiteout)
	folder, err := t.folder(dir, false)
	if err != nil || folder == nil {
		return err
	}
	switch {
	case base == opaque:
		folder.prune(t.layer)
	case strings.HasPrefix(victim, whiteout): // AUFS's own files, which mean nothing elsewhere
	case victim == "" || victim == "." || victim == "..":
		return fmt.Errorf("%w %q: it deletes %q", ErrPath, dir+base, victim)
	default:
		if child := folder.children[victim]; child != nil && !child.prune(t.layer) {
			delete(folder.children, victim)
		}
	}
	return nil
}

// prune takes away what is of lower layers, and says whether anything is left.
func (n *name) prune(layer int) bool {
	if n.children == nil {
		return n.layer == layer
	}
	if n.pruned != layer+1 {
		n.pruned = layer + 1
		for base, child := range n.children {
			if !child.prune(layer) {
				delete(n.children, base)
			}
		}
	}
	return n.layer == layer || len(n.children) > 0
}

// folder finds a folder. With make, folders that are missing are made, else the answer is then nil.
func (t *merging) folder(dir string, make bool) (*name, error) {
	at, rest, hops := t.root, strings.Split(dir, "/"), 0
	for len(rest) > 0 {
		element := rest[0]
		rest = rest[1:]
		switch element {
		case "", ".":
			continue
		case "..": // of a link's target
			if at.up != nil {
				at = at.up
			}
			continue
		}
		next := at.children[element]
		switch {
		case next == nil && !make:
			return nil, nil
		case next == nil:
			if t.entries++; t.entries > maxMerged {
				return nil, fmt.Errorf("%w: more than %d entries", ErrMerge, maxMerged)
			}
			next = &name{node: &node{kind: Folder, index: -1}, up: at, children: map[string]*name{}, layer: t.layer}
			at.children[element] = next
		case next.node.kind == Symlink:
			if hops++; hops > linkHops {
				return nil, fmt.Errorf("%w: %s leads through more than %d symbolic links", ErrMerge, dir, linkHops)
			}
			if strings.HasPrefix(next.node.link, "/") {
				at = t.root
			}
			rest = append(strings.Split(next.node.link, "/"), rest...)
			continue
		case next.node.kind != Folder:
			return nil, fmt.Errorf("%w: %s leads through a %v", ErrMerge, dir, next.node.kind)
		}
		at = next
	}
	return at, nil
}

// lookup finds what a hard link may be a name of.
func (t *merging) lookup(p string) (*name, error) {
	dir, base := path.Split(p)
	folder, err := t.folder(dir, false)
	if err != nil {
		return nil, err
	}
	if folder == nil || folder.children[base] == nil || folder.children[base].node.kind == Folder {
		return nil, fmt.Errorf("%w: a hard link to %s, which is no file of this or a lower layer", ErrMerge, p)
	}
	return folder.children[base], nil
}
