package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/image/source"
)

// Options says what file system is made.
type Options struct {
	Size     int64 // bytes; what is left over after whole blocks and groups stays unused
	UUID     [16]byte
	Label    string    // at most 16 bytes
	Time     time.Time // when it was made; also of entries that have no time
	HashSeed [16]byte  // for the hash over names in folders; zero is allowed
	Inodes   uint32    // 0: one for each 16 KiB
}

// Writer makes a file system. It is for one goroutine.
type Writer struct {
	options     Options
	geometry    *geometry
	alloc       *allocator
	out         *output
	seed        uint32 // of checksums
	hashSeed    [4]uint32
	born        timestamp
	inodes      []*inode // by number, from 1 on
	freeNumbers []uint32
	root        *node
	lostFound   *node
	journal     *inode
	piece       []byte
	err         error // the first; nothing is written after it
}

// pieceSize is how file content is looked at: an aligned piece of nothing but zeros is not stored.
// It is a QCOW2 cluster; smaller holes would only scatter the file.
const pieceSize = 64 << 10

// NewWriter begins a file system that starts at w's offset 0. It writes blocks of 4096 bytes,
// some of them twice at most, and holds no data back after Close.
func NewWriter(out io.WriterAt, o Options) (*Writer, error) {
	g, err := newGeometry(o.Size, o.Inodes)
	if err != nil {
		return nil, err
	}
	if len(o.Label) > 16 {
		return nil, fmt.Errorf("ext4 label %q is longer than 16 bytes", o.Label)
	}
	w := &Writer{
		options: o, geometry: g, alloc: newAllocator(g), out: &output{out, g.blocks},
		seed: fsSeed(o.UUID), born: newTimestamp(o.Time), piece: make([]byte, pieceSize),
	}
	for i := range w.hashSeed {
		w.hashSeed[i] = le.Uint32(o.HashSeed[4*i:])
	}
	for range firstInode - 1 {
		w.newInode(0, w.born)
	}
	w.root = &node{inode: w.inodes[rootInode-1], children: map[string]*node{}}
	w.root.parent = w.root
	w.root.inode.mode, w.root.inode.links = modeFolder|0o755, 2
	w.lostFound = w.hang(w.root, "lost+found", w.newInode(modeFolder|0o700, w.born))
	if err := w.makeResizeInode(); err != nil {
		return nil, err
	}
	if err := w.makeJournal(); err != nil {
		return nil, err
	}
	return w, nil
}

func (w *Writer) inodeSeed(n *inode) uint32 { return inodeSeed(w.seed, n.number, 0) }

// Add stores an entry, and its content from the reader if it is a regular file. An entry of a
// path that was there before replaces it; folders in a path that are missing are made. When
// the tree turns out too large, Add goes on counting, and Close says how much is needed. After any other
// error the file system is lost.
func (w *Writer) Add(e source.Entry, content io.Reader) error {
	if w.err != nil {
		return w.err
	}
	if err := w.add(e, content); err != nil {
		w.err = fmt.Errorf("%s: %w", e.Path, err)
	}
	return w.err
}

func (w *Writer) add(e source.Entry, content io.Reader) error {
	if e.Path == "/" {
		if e.Type != source.Folder {
			return fmt.Errorf("%w: the root must be a folder", ErrTree)
		}
		return w.setFacts(w.root.inode, e)
	}
	path, name, err := cut(e.Path)
	if err != nil {
		return err
	}
	parent, err := w.walk(path, w.makeFolder)
	if err != nil {
		return err
	}
	old := parent.children[name]
	if e.Type == source.HardLink {
		return w.link(parent, name, e.Link)
	}
	if old != nil {
		if old.isFolder() && e.Type == source.Folder {
			return w.setFacts(old.inode, e)
		}
		if err := w.drop(parent, name); err != nil {
			return err
		}
	}
	kind, err := modeOfType(e.Type)
	if err != nil {
		return err
	}
	n := w.newInode(kind, w.born)
	if err := w.setFacts(n, e); err != nil {
		return err
	}
	w.hang(parent, name, n)
	switch e.Type {
	case source.Regular:
		return w.writeFile(n, e.Size, content)
	case source.Symlink:
		return w.writeSymlink(n, e.Link)
	case source.CharDevice, source.BlockDevice:
		if e.Major >= 1<<12 || e.Minor >= 1<<20 { // Linux MINORBITS
			return fmt.Errorf("%w: the device number %d:%d", ErrTree, e.Major, e.Minor)
		}
		n.block = device(e.Major, e.Minor)
	}
	return nil
}

func modeOfType(t source.Type) (uint16, error) {
	switch t {
	case source.Regular:
		return modeRegular, nil
	case source.Folder:
		return modeFolder, nil
	case source.Symlink:
		return modeSymlink, nil
	case source.CharDevice:
		return modeChar, nil
	case source.BlockDevice:
		return modeBlock, nil
	case source.FIFO:
		return modeFIFO, nil
	}
	return 0, fmt.Errorf("%w: an entry of %v", ErrTree, t)
}

// makeFolder makes a folder that a path needs and no entry described.
func (w *Writer) makeFolder(parent *node, name string) *node {
	return w.hang(parent, name, w.newInode(modeFolder|0o755, w.born))
}

// setFacts sets what the entry says of the inode, over what was said before.
func (w *Writer) setFacts(n *inode, e source.Entry) error {
	n.mode = n.mode&modeKind | uint16(e.Mode&0o7777)
	n.uid, n.gid = e.UID, e.GID
	n.time = w.born
	if !e.ModTime.IsZero() {
		n.time = newTimestamp(e.ModTime)
	}
	for _, s := range n.owned { // a folder's attributes: it has no other blocks yet
		w.alloc.giveBack(s)
	}
	n.owned, n.xattrs, n.xattrBlock = nil, nil, 0
	return w.setXattrs(n, e.Xattrs)
}

func (w *Writer) link(parent *node, name, target string) error {
	path, last, err := cut(target)
	if err != nil {
		return err
	}
	folder, err := w.walk(path, nil)
	if err != nil {
		return err
	}
	var to *node
	if folder != nil {
		to = folder.children[last]
	}
	switch old := parent.children[name]; {
	case to == nil:
		return fmt.Errorf("%w: a hard link to %s, which is not there", ErrTree, target)
	case to.isFolder():
		return fmt.Errorf("%w: a hard link to the folder %s", ErrTree, target)
	case to.inode.links == linkMax:
		return fmt.Errorf("%w: more than %d hard links to %s", ErrTree, linkMax, target)
	case old != nil && old.inode == to.inode:
		return nil
	case old != nil:
		if err := w.drop(parent, name); err != nil {
			return err
		}
	}
	to.inode.links++
	w.hang(parent, name, to.inode)
	return nil
}

func (w *Writer) writeSymlink(n *inode, target string) error {
	if target == "" || len(target) > symlinkMax {
		return fmt.Errorf("%w: a symbolic link of %d bytes", ErrTree, len(target))
	}
	n.target = target
	if len(target) <= fastLinkMax {
		copy(n.block[:], target)
		n.size = int64(len(target))
		return nil
	}
	block := make([]byte, blockSize)
	copy(block, target)
	err := w.writeBlocks(n, [][]byte{block})
	n.size = int64(len(target))
	return err
}

var zeros [pieceSize]byte

// writeFile stores content piece by piece and leaves holes where a piece is all zeros.
func (w *Writer) writeFile(n *inode, size int64, content io.Reader) error {
	if size < 0 || size > blockSize<<32-blockSize {
		return fmt.Errorf("%w: a file of %d bytes", ErrTree, size)
	}
	n.size = size
	var list []extent
	for at := int64(0); at < size; at += pieceSize {
		logical, piece := uint32(at/blockSize), w.piece[:min(size-at, pieceSize)]
		if w.alloc.full { // only counting
			for rest := uint64(size-at+blockSize-1) / blockSize; rest > 0; {
				got := w.alloc.take(rest)
				n.own(got)
				rest -= got.count
			}
			break
		}
		if _, err := io.ReadFull(content, piece); err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("content at %d of %d bytes: %w", at, size, err)
		}
		if bytes.Equal(piece, zeros[:len(piece)]) {
			continue
		}
		whole := w.piece[:(len(piece)+blockSize-1)/blockSize*blockSize]
		clear(whole[len(piece):])
		for len(whole) > 0 {
			got := w.alloc.take(uint64(len(whole) / blockSize))
			list = addExtent(list, logical, got)
			part := int(got.count) * blockSize
			if err := w.out.write(got.start, whole[:part]); err != nil {
				return err
			}
			logical, whole = logical+uint32(got.count), whole[part:]
		}
	}
	return w.mapBlocks(n, list)
}
