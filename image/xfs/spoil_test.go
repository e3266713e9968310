package xfs

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

// inode gives where a path's inode is.
func (s *spoiler) inode(path string) int64 {
	n, err := s.good.Link(path)
	if err != nil {
		s.T.Fatal(err)
	}
	at, err := s.good.place(n.ID().Number>>s.good.super.inopLog, 1)
	if err != nil {
		s.T.Fatal(err)
	}
	return at + int64(n.ID().Number&(1<<s.good.super.inopLog-1))<<s.good.super.inodeLog
}

// block gives where a block of a path's content, or of its attributes, is.
func (s *spoiler) block(path string, attr bool, off uint64) int64 {
	n, err := s.good.tree().Inode(fsystest.Must(s.good.Link(path)).ID())
	if err != nil {
		s.T.Fatal(err)
	}
	r := n.Form.(*record)
	k := r.data
	if attr {
		k = r.attr
	}
	found := int64(-1)
	err = s.good.extents(r, k, func(e extent) error {
		if e.off <= off && off < e.off+e.count {
			found, err = s.good.place(e.block+off-e.off, 1)
		}
		return err
	})
	if err != nil || found < 0 {
		s.T.Fatalf("%s has no block %d: %v", path, off, err)
	}
	return found
}

func (f *Reader) tree() *tree { return &tree{f} }

// walkAll reads all that a file system has.
func walkAll(r *Reader) error { return fsystest.ReadAll(r.Allocated, r) }

func TestSpoil(t *testing.T) {
	seed, _ := fsystest.Seed(t, "kernel")
	good := fsystest.Must(Open(seed, seed.Size))
	if err := walkAll(good); err != nil {
		t.Fatal(err)
	}
	group := int64(good.super.agBlocks) << good.super.blockLog
	log := fsystest.Must(good.place(good.super.logStart, 1))
	format := new(*fsys.FormatError)
	for name, test := range map[string]struct {
		want    any // a sentinel, or format
		problem string
		spoil   func(*spoiler)
	}{
		"magic":             {ErrNotXFS, "", func(s *spoiler) { s.Put(0, 'Y') }},
		"super checksum":    {format, "superblock: wrong checksum", func(s *spoiler) { s.Put(224, 1, 2, 3, 4); s.Image.WriteAt([]byte{9}, 224) }},
		"block size":        {format, "blocks of 4097", func(s *spoiler) { s.Put(7, 1) }},
		"size":              {format, "blocks of 4096 bytes, in", func(s *spoiler) { s.Put(13, 1) }},
		"groups":            {format, "3 groups", func(s *spoiler) { s.Put(91, 3) }},
		"inode size":        {format, "inodes of", func(s *spoiler) { s.Put(104, 0x40) }},
		"folder block":      {format, "folder blocks", func(s *spoiler) { s.Put(192, 9) }},
		"in progress":       {format, "not done", func(s *spoiler) { s.Put(126, 1) }},
		"version":           {fsys.ErrUnsupported, "version 6", func(s *spoiler) { s.Put(101, 0xb6) }},
		"metadir":           {fsys.ErrUnsupported, "metadir", func(s *spoiler) { s.Put(218, 1) }},
		"unknown":           {fsys.ErrUnsupported, "incompat bit 31", func(s *spoiler) { s.Put(216, 0x80) }},
		"unknown read-only": {fsys.ErrUnsupported, "ro_compat bit 24", func(s *spoiler) { s.Put(212, 1) }},
		"realtime":          {fsys.ErrUnsupported, "realtime", func(s *spoiler) { s.Put(23, 1) }},
		"external log":      {fsys.ErrUnsupported, "log on another device", func(s *spoiler) { s.Put(48, 0, 0, 0, 0, 0, 0, 0, 0) }},
		"log outside":       {format, "a log of", func(s *spoiler) { s.Put(50, 1) }},
		"needs repair":      {fsys.ErrUnclean, "xfs_repair", func(s *spoiler) { s.Put(219, s.Get(219, 1)[0]|0x10) }},
		"dirty log": {fsys.ErrUnclean, "ends with changes", func(s *spoiler) {
			last := int64(-1) // the last record, of unmounting, is no longer
			for at := log; at < log+int64(good.super.logBlocks)*4096-basicBlock; at += basicBlock {
				if b := s.Get(at, 8); be.Uint32(b) == logMagic && be.Uint32(b[4:]) == be.Uint32(s.Get(log+4, 4)) {
					last = at
				}
			}
			if s.Get(last+basicBlock+9, 1)[0] != logUnmount {
				t.Fatal("the seed's log does not end with unmounting")
			}
			s.Put(last+basicBlock+9, 0)
		}},
		"torn log":       {fsys.ErrUnclean, "torn", func(s *spoiler) { s.Put(log+100*basicBlock, 0, 7, 7, 7) }},
		"group header":   {format, "group 1", func(s *spoiler) { s.Put(group+512, 'Y') }},
		"group length":   {format, "group 1: ", func(s *spoiler) { s.Put(group+512+15, s.Get(group+512+15, 1)[0]^1) }},
		"free blocks":    {format, "its tree has", func(s *spoiler) { s.Put(512+55, s.Get(512+55, 1)[0]^1) }},
		"free tree":      {format, "free-space tree of 77 levels", func(s *spoiler) { s.Put(512+31, 77) }},
		"free root":      {format, "group 0", func(s *spoiler) { s.Put(512+16, 0x7f) }},
		"no inode":       {format, "there is none", func(s *spoiler) { s.Put(s.inode("/original")+2, 0, 0) }},
		"inode number":   {format, "is inode", func(s *spoiler) { s.Put(s.inode("/original")+159, 0xee) }},
		"inode checksum": {format, "wrong checksum", func(s *spoiler) { s.Image.WriteAt([]byte{1}, s.inode("/original")+110) }},
		"fork":           {format, "a fork of form 9", func(s *spoiler) { s.Put(s.inode("/original")+5, 9) }},
		"fork offset":    {format, "attributes at", func(s *spoiler) { s.Put(s.inode("/original")+82, 0xff) }},
		"extents":        {format, "extents in", func(s *spoiler) { s.Put(s.inode("/original")+24, 0, 0, 0, 0, 1, 0, 0, 0) }},
		"extent":         {format, "outside the file system", func(s *spoiler) { s.Put(s.inode("/original")+inodeHeadV3+8, 0xff, 0xff, 0xff) }},
		"many extents":   {fsys.ErrTooLarge, "", func(s *spoiler) { s.Put(s.inode("/fragments")+24, 0, 0, 1) }},
		"tree extents":   {format, "its tree has", func(s *spoiler) { s.Put(s.inode("/fragments")+31, 0) }},
		"tree level":     {format, "root of level 200", func(s *spoiler) { s.Put(s.inode("/fragments")+inodeHeadV3+1, 200) }},
		"link size":      {format, "a symbolic link of", func(s *spoiler) { s.Put(s.inode("/remote-link")+60, 1) }},
		"link header":    {format, "symbolic link's part", func(s *spoiler) { s.Put(s.block("/remote-link", false, 0)+8, 0xff) }},
		"link owner":     {format, "belongs to inode", func(s *spoiler) { s.Put(s.block("/remote-link", false, 0)+39, 0xee) }},
		"link place":     {format, "lies at sector", func(s *spoiler) { s.Put(s.block("/remote-link", false, 0)+47, 0xee) }},
		"link zero":      {format, "zero byte", func(s *spoiler) { s.Put(s.block("/remote-link", false, 0)+100, 0) }},
		"short folder":   {format, "longer than it", func(s *spoiler) { s.Put(s.inode("/boot")+inodeHeadV3, 200) }},
		"short name":     {format, "name \"\\x00", func(s *spoiler) { s.Put(s.inode("/boot")+inodeHeadV3+9, 0) }},
		"folder cycle": {format, "two names", func(s *spoiler) {
			n := fsystest.Must(s.good.Link("/")).ID().Number
			at := s.inode("/boot") + inodeHeadV3 + 6 + 3 + int64(s.Get(s.inode("/boot")+inodeHeadV3+6, 1)[0]) + 1
			s.Put(at, byte(n>>24), byte(n>>16), byte(n>>8), byte(n))
		}},
		"folder entry": {format, "bytes at", func(s *spoiler) { s.Put(s.block("/big", false, 0)+folderHeadV5+8, 250) }},
		"folder magic": {format, "no block of names", func(s *spoiler) {
			s.Put(s.block("/big", false, 0), 'Y')
			s.sum(s.block("/big", false, 0), folderHeader)
		}},
		"folder size": {format, "behind the end", func(s *spoiler) { s.Put(s.inode("/big")+56, 0, 0, 0, 0, 0, 0, 0x10, 0) }},
		"slash":       {format, "name", func(s *spoiler) { s.Put(s.block("/big", false, 1)+folderHeadV5+10, '/') }},
		"attribute":   {format, "a name at", func(s *spoiler) { s.Put(s.block("/attrs/remote", true, 0)+attrLeafHd5+4, 0) }},
		"attributes":  {format, "in a block", func(s *spoiler) { s.Put(s.block("/attrs/remote", true, 0)+attrInfoV5, 0xff) }},
		"attribute ring": {format, "one of a ring", func(s *spoiler) {
			for off := uint64(0); ; off++ {
				if at := s.block("/attrs/many", true, off); be.Uint16(s.Get(at+8, 2)) == attrLeafV5 {
					s.Put(at, 0, 0, 0, byte(off))
					return
				}
			}
		}},
		"value":          {format, "a value's part", func(s *spoiler) { s.Put(s.value()+8, 0xff) }},
		"value checksum": {format, "wrong checksum", func(s *spoiler) { s.Image.WriteAt([]byte{1}, s.value()+2000) }},
	} {
		t.Run(name, func(t *testing.T) {
			s := &spoiler{fsystest.Spoiler{T: t, Image: seed.Copy()}, good}
			s.Mend = func(at int64) { mend(s.Image, at) }
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

// value gives where a block of a value is.
func (s *spoiler) value() int64 {
	for off := uint64(0); ; off++ {
		if at := s.block("/attrs/remote", true, off); string(s.Get(at, 4)) == "XARM" {
			return at
		}
	}
}

// sum mends a block whose magic number says no longer what it is.
func (s *spoiler) sum(at int64, h header) {
	magic := s.Get(at, 4)
	if _, err := s.Image.WriteAt([]byte(dataMagicV5), at); err != nil {
		s.T.Fatal(err)
	}
	b := s.Get(at, 4096)
	copy(b, magic)
	fix(b, h.crc)
	if _, err := s.Image.WriteAt(b, at); err != nil {
		s.T.Fatal(err)
	}
}
