package fat

import (
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// find looks a path up, without regard to case.
func (f *Reader) find(name string) (file, error) {
	at := file{folder: true, first: f.rootFirst}
	depth := 0
	for element := range strings.SplitSeq(name, "/") {
		if element == "" || element == "." {
			continue
		}
		if depth++; depth > maxDepth || !at.folder {
			return file{}, fmt.Errorf("%s: %w", name, ErrNotFound)
		}
		list, _, err := f.folder(at.first)
		if err != nil {
			return file{}, err
		}
		found := false
		for _, e := range list {
			if strings.EqualFold(e.name, element) {
				at, found = e, true
				break
			}
		}
		if !found {
			return file{}, fmt.Errorf("%s: %w", name, ErrNotFound)
		}
	}
	return at, nil
}

// ReadDir gives the names in a folder.
func (f *Reader) ReadDir(name string) ([]string, error) {
	at, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if !at.folder {
		return nil, fmt.Errorf("%s: %w: it is no folder", name, ErrNotFound)
	}
	list, _, err := f.folder(at.first)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range list {
		names = append(names, e.name)
	}
	return names, nil
}

// ReadFile reads a file of at most most bytes.
func (f *Reader) ReadFile(name string, most int64) ([]byte, error) {
	at, err := f.find(name)
	if err != nil {
		return nil, err
	}
	if at.folder {
		return nil, fmt.Errorf("%s: %w: it is a folder", name, ErrNotFound)
	}
	if at.size > most {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, at.size, most)
	}
	return io.ReadAll(f.open(at))
}

// content reads a file along its chain.
type content struct {
	f    *Reader
	at   uint32
	off  int64 // within the cluster
	left int64
}

func (f *Reader) open(e file) io.Reader { return &content{f: f, at: e.first, left: e.size} }

// Read needs no bound on the chain: each cluster takes its share of what is left.
func (c *content) Read(p []byte) (int, error) {
	if c.left == 0 {
		return 0, io.EOF
	}
	if c.off == c.f.cluster {
		next, end, err := c.f.next(c.at)
		if err != nil {
			return 0, err
		}
		if end {
			return 0, broken(fmt.Sprintf("chain at cluster %d", c.at), "it ends %d bytes before the file", c.left)
		}
		c.at, c.off = next, 0
	}
	if c.at < firstCluster || c.at > c.f.last {
		return 0, broken("file", "its chain leads to cluster %d of %d", c.at, c.f.last)
	}
	p = p[:min(int64(len(p)), c.left, c.f.cluster-c.off)]
	if err := readFull(c.f.r, p, c.f.place(c.at)+c.off); err != nil {
		return 0, err
	}
	c.off += int64(len(p))
	c.left -= int64(len(p))
	return len(p), nil
}

// Walk gives every folder and file, as source.Source does. FAT knows no owners and permissions: all
// belongs to root, who alone may read it, since an EFI system partition may hold a random seed.
func (f *Reader) Walk(ctx context.Context, use source.WalkFunc) error {
	w := &walker{f: f, ctx: ctx, use: use, seen: map[uint32]bool{}}
	return w.folder("/", f.rootFirst, 0)
}

type walker struct {
	f    *Reader
	ctx  context.Context
	use  source.WalkFunc
	seen map[uint32]bool // first clusters of folders
}

func (w *walker) folder(name string, first uint32, depth int) error {
	if w.seen[first] || depth > maxDepth {
		return broken(name, "this folder is inside itself, in two places, or too deep")
	}
	w.seen[first] = true
	list, _, err := w.f.folder(first)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	names := map[string]bool{}
	for _, e := range list {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		entry := source.Entry{Path: path.Join(name, e.name), Type: source.Regular, Mode: 0o600, Size: e.size, ModTime: e.made}
		if names[e.name] {
			return broken(entry.Path, "two entries have this name")
		}
		names[e.name] = true
		if !e.folder {
			if err := w.use(entry, w.f.open(e)); err != nil {
				return fmt.Errorf("%s: %w", entry.Path, err)
			}
			continue
		}
		entry.Type, entry.Mode = source.Folder, 0o700
		if err := w.use(entry, nil); err != nil {
			return fmt.Errorf("%s: %w", entry.Path, err)
		}
		if e.first < firstCluster { // only a root folder may stand for none
			return broken(entry.Path, "a folder at cluster %d", e.first)
		}
		if err := w.folder(entry.Path, e.first, depth+1); err != nil {
			return err
		}
	}
	return nil
}
