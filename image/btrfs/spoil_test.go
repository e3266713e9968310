package btrfs

import (
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/fsys/fsystest"
)

// spoiler changes one thing in an image and mends its checksum.
type spoiler struct {
	fsystest.Spoiler
	good *Reader
}

// super changes bytes of the superblock.
func (s *spoiler) super(at int64, b ...byte) { s.Put(superOffset+at, b...) }

// item changes the first item of a type in a tree, at a place in it, in all copies.
func (s *spoiler) item(root pointer, from key, at int64, b ...byte) {
	s.T.Helper()
	for p := root; ; {
		raw := fsystest.Must(s.good.block(p, nil))
		count := int(le.Uint32(raw[96:]))
		if p.level > 0 {
			i := 0
			for j := range count {
				if k, _ := decodeKey(raw[headSize+j*pointerSize:]); k.compare(from) <= 0 {
					i = j
				}
			}
			child := raw[headSize+i*pointerSize+keySize:]
			p = pointer{le.Uint64(child), le.Uint64(child[8:]), p.level - 1}
			continue
		}
		for i := range count {
			head := raw[headSize+i*itemSize:]
			if k, _ := decodeKey(head); k.compare(from) >= 0 && k.kind == from.kind {
				for _, place := range fsystest.Must(s.good.places(p.address, uint64(len(raw)))) {
					s.Put(int64(place)+headSize+int64(le.Uint32(head[17:]))+at, b...)
				}
				return
			}
		}
		s.T.Fatalf("no item from %v on", from)
	}
}

// file changes an item of a file.
func (s *spoiler) file(path string, kind uint8, at int64, b ...byte) {
	n := fsystest.Must(fsystest.Must(s.good.Subvolume("/")).Link(path))
	s.item(fsystest.Must(s.good.root(topLevel)), key{object: n.ID().Number, kind: kind}, at, b...)
}

// node changes bytes of a tree's root block, in all copies.
func (s *spoiler) node(p pointer, at int64, b ...byte) {
	for _, place := range fsystest.Must(s.good.places(p.address, uint64(s.good.super.nodeSize))) {
		s.Put(int64(place)+at, b...)
	}
}

// damage changes a byte without mending, in some of the copies.
func (s *spoiler) damage(address uint64, copies int) {
	for _, place := range fsystest.Must(s.good.places(address, 4096))[:copies] {
		if _, err := s.Image.WriteAt([]byte{0xa5, 0x5a}, int64(place)+200); err != nil {
			s.T.Fatal(err)
		}
	}
}

// content gives the address of a file's first extent.
func (s *spoiler) content(path string) uint64 {
	n := fsystest.Must(fsystest.Must(s.good.Subvolume("/")).Link(path))
	b, _, err := s.good.one(fsystest.Must(s.good.root(topLevel)), key{object: n.ID().Number, kind: itemContent})
	if err != nil {
		s.T.Fatal(err)
	}
	return le.Uint64(b[21:])
}

// walkAll reads all that a file system has.
func walkAll(r *Reader) error {
	if _, err := r.Subvolumes(); err != nil {
		return err
	}
	top, err := r.Subvolume("/")
	if err != nil {
		return err
	}
	return fsystest.ReadAll(r.Allocated, top)
}

func TestSpoil(t *testing.T) {
	format := new(*fsys.FormatError)
	files := func(s *spoiler) pointer { return fsystest.Must(s.good.root(topLevel)) }
	for name, test := range map[string]struct {
		seed    string
		want    any // a sentinel, format, or nil for what is read all the same
		problem string
		spoil   func(*spoiler)
	}{
		"magic":          {"zstd", ErrNotBtrfs, "", func(s *spoiler) { s.super(64, 'Y') }},
		"super checksum": {"zstd", format, "superblock: wrong checksum", func(s *spoiler) { s.Image.WriteAt([]byte{9}, superOffset+900) }},
		"place":          {"zstd", format, "says that it lies", func(s *spoiler) { s.super(48, 1) }},
		"checksum kind":  {"zstd", fsys.ErrUnsupported, "checksums of type 9", func(s *spoiler) { s.super(196, 9) }},
		"devices":        {"zstd", fsys.ErrUnsupported, "2 devices", func(s *spoiler) { s.super(136, 2) }},
		"extent tree v2": {"zstd", fsys.ErrUnsupported, "extent-tree-v2", func(s *spoiler) { s.super(189, 0x23) }},
		"stripe tree":    {"zstd", fsys.ErrUnsupported, "raid-stripe-tree", func(s *spoiler) { s.super(189, 0x43) }},
		"unknown":        {"zstd", fsys.ErrUnsupported, "incompat bit 31", func(s *spoiler) { s.super(191, 0x80) }},
		"unknown ro":     {"zstd", fsys.ErrUnsupported, "compat_ro bit 8", func(s *spoiler) { s.super(181, 1) }},
		"sector size":    {"zstd", format, "sectors of 512", func(s *spoiler) { s.super(144, 0, 2, 0, 0) }},
		"node size":      {"zstd", format, "tree blocks of", func(s *spoiler) { s.super(150, 0xff) }},
		"size":           {"zstd", format, "bytes, in", func(s *spoiler) { s.super(119, 1) }},
		"dump":           {"zstd", fsys.ErrUnsupported, "dump of metadata", func(s *spoiler) { s.super(60, 2) }},
		"log tree":       {"zstd", fsys.ErrUnclean, "log tree", func(s *spoiler) { s.super(96, 1) }},
		"no chunks":      {"zstd", format, "no chunk", func(s *spoiler) { s.super(160, 0, 0) }},
		"chunks":         {"zstd", format, "bytes of chunks", func(s *spoiler) { s.super(160, 0xff, 0xff) }},
		"chunk key":      {"zstd", format, "behind its chunks", func(s *spoiler) { s.super(811+8, 7) }},
		"chunk profile":  {"zstd", fsys.ErrUnsupported, "profile RAID1C3", func(s *spoiler) { s.super(811+17+25, 2) }},
		"chunk stripes":  {"zstd", format, "stripes, not 2", func(s *spoiler) { s.super(811+17+44, 99) }},
		"chunk length":   {"zstd", format, "0 bytes", func(s *spoiler) { s.super(811+17, make([]byte, 8)...) }},
		"chunk device":   {"zstd", format, "of device 7", func(s *spoiler) { s.super(811+17+48, 7) }},
		"chunk place": {"zstd", format, "lies where another does", func(s *spoiler) {
			s.super(811+17+48+8, s.Get(superOffset+811+17+48+32+8, 8)...)
		}},
		"generation":     {"zstd", format, "generation", func(s *spoiler) { s.super(72, 1) }},
		"level":          {"zstd", format, "level", func(s *spoiler) { s.super(198, 5) }},
		"used":           {"zstd", format, "the superblock says", func(s *spoiler) { s.super(121, 1) }},
		"one copy":       {"zstd", nil, "", func(s *spoiler) { s.damage(files(s).address, 1) }},
		"both copies":    {"zstd", format, "wrong checksum", func(s *spoiler) { s.damage(files(s).address, 2) }},
		"single":         {"zlib", format, "wrong checksum", func(s *spoiler) { s.damage(files(s).address, 1) }},
		"one of content": {"zstd", nil, "", func(s *spoiler) { s.damage(s.content("/original"), 1) }},
		"content":        {"zstd", format, "content with a wrong checksum", func(s *spoiler) { s.damage(s.content("/original"), 2) }},
		"plain content":  {"plain", format, "content with a wrong checksum", func(s *spoiler) { s.damage(s.content("/original"), 1) }},
		"block's place":  {"plain", format, "says that it is", func(s *spoiler) { s.node(files(s), 49, 0xee) }},
		"block's count":  {"plain", format, "items at level", func(s *spoiler) { s.node(files(s), 98, 1) }},
		"keys":           {"plain", format, "do not ascend", func(s *spoiler) { s.node(files(s), headSize+pointerSize+7, 0xff) }},
		"child":          {"plain", format, "lie in no chunk", func(s *spoiler) { s.node(files(s), headSize+keySize+7, 0x7f) }},
		"own child": {"plain", format, "level", func(s *spoiler) {
			s.node(files(s), headSize+keySize, le.AppendUint64(nil, files(s).address)...)
		}},
		"inode mode":  {"plain", format, "mode", func(s *spoiler) { s.file("/original", itemInode, 53, 0) }},
		"inode size":  {"plain", format, "bytes", func(s *spoiler) { s.file("/original", itemInode, 23, 0x80) }},
		"name length": {"plain", format, "a name of", func(s *spoiler) { s.file("/boot", itemFolderIndex, 28, 9) }},
		"name slash":  {"plain", format, "name \"/", func(s *spoiler) { s.file("/boot", itemFolderIndex, 30, '/') }},
		"name twice":  {"plain", format, "twice", func(s *spoiler) { s.file("/devices", itemFolderIndex, 30, []byte("high")...) }},
		"folder cycle": {"plain", format, "two names", func(s *spoiler) {
			s.file("/boot", itemFolderIndex, 0, le.AppendUint64(nil, firstFree)...)
		}},
		"name's item":   {"plain", format, "item of type 9", func(s *spoiler) { s.file("/boot", itemFolderIndex, 8, 9) }},
		"extent type":   {"plain", format, "an extent of type 7", func(s *spoiler) { s.file("/original", itemContent, 20, 7) }},
		"encryption":    {"plain", fsys.ErrUnsupported, "encryption 1", func(s *spoiler) { s.file("/original", itemContent, 17, 1) }},
		"compression":   {"plain", fsys.ErrUnsupported, "compression 4", func(s *spoiler) { s.file("/original", itemContent, 16, 4) }},
		"extent":        {"plain", format, "no chunk", func(s *spoiler) { s.file("/original", itemContent, 27, 0x7f) }},
		"extent end":    {"plain", format, "from 1048576 on", func(s *spoiler) { s.file("/original", itemContent, 39, 0x10) }},
		"extent size":   {"plain", format, "0 bytes at", func(s *spoiler) { s.file("/original", itemContent, 45, make([]byte, 8)...) }},
		"bomb":          {"zstd", format, "compressed to", func(s *spoiler) { s.file("/original", itemContent, 8, 0, 0, 0, 0x7f) }},
		"other packing": {"zstd", format, "decompress zlib", func(s *spoiler) { s.file("/original", itemContent, 16, 1) }},
		"not lzo":       {"zlib", format, "lzo", func(s *spoiler) { s.file("/original", itemContent, 16, 2) }},
		"inline":        {"plain", format, "bytes inline", func(s *spoiler) { s.file("/boot/vmlinuz-6.1.0-9-amd64", itemContent, 10, 0x7f) }},
		"link size":     {"plain", format, "symbolic link of", func(s *spoiler) { s.file("/middle-link", itemInode, 18, 1) }},
		"attribute":     {"plain", format, "a name of", func(s *spoiler) { s.file("/attrs/one", itemXattr, 26, 0xff) }},
		"root":          {"plain", format, "a root of", func(s *spoiler) { s.item(s.good.super.root, key{object: topLevel, kind: itemRoot}, 238, 77) }},
		"sums": {"plain", format, "without a checksum", func(s *spoiler) {
			s.node(fsystest.Must(s.good.root(sumTree)), headSize+8, itemSums-1)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			seed, _ := fsystest.Seed(t, test.seed)
			good := fsystest.Must(Open(seed, seed.Size))
			if err := walkAll(good); err != nil {
				t.Fatal(err)
			}
			s := &spoiler{fsystest.Spoiler{T: t, Image: seed.Copy()}, good}
			s.Mend = func(at int64) { mend(s.Image, good.super, at) }
			test.spoil(s)
			r, err := Open(s.Image, s.Image.Size)
			if err == nil {
				err = walkAll(r)
			} else if r != nil {
				t.Error("a reader and an error")
			}
			fsystest.Refused(t, err, test.want, test.problem)
		})
	}
}
