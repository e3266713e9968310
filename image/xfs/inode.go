package xfs

import (
	"fmt"
	"time"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
)

// Sizes and flags of xfs_dinode (xfs_format.h).
const (
	inodeHeadV2 = 100
	inodeHeadV3 = 176 // in file systems of version 5

	inodeRealtime  = 1 << 0 // XFS_DIFLAG_REALTIME
	inodeBigtime   = 1 << 3 // XFS_DIFLAG2_BIGTIME
	inodeNrext64   = 1 << 4 // XFS_DIFLAG2_NREXT64
	bigtimeBegins  = -1 << 31
	kindMask       = 0o170000
	permissionMask = 0o7777
)

// How a fork keeps its content (enum xfs_dinode_fmt).
const (
	formDevice  = 0
	formLocal   = 1
	formExtents = 2
	formTree    = 3
)

var kinds = map[uint16]source.Type{
	0o010000: source.FIFO, 0o020000: source.CharDevice, 0o040000: source.Folder, 0o060000: source.BlockDevice,
	0o100000: source.Regular, 0o120000: source.Symlink, 0o140000: fsys.Socket,
}

// fork is where an inode keeps its content, or its attributes.
type fork struct {
	form    uint8
	raw     []byte
	extents uint64
}

// record is the form of an inode.
type record struct {
	number     uint64
	size       int64
	data, attr fork
}

// tree is the file system as package fsys wants it.
type tree struct{ f *Reader }

func (t *tree) Clean() error { return t.f.clean() }

func (t *tree) Broken(id fsys.ID, problem string) error {
	return broken(fmt.Sprintf("inode %d", id.Number), "%s", problem)
}

// Inode reads an inode, whose number says where it is.
func (t *tree) Inode(id fsys.ID) (*fsys.Inode, error) {
	f, s := t.f, t.f.super
	bad := func(format string, args ...any) error {
		return broken(fmt.Sprintf("inode %d", id.Number), format, args...)
	}
	at, err := f.place(id.Number>>s.inopLog, 1)
	if err != nil {
		return nil, bad("lies outside the file system")
	}
	at += int64(id.Number&(1<<s.inopLog-1)) << s.inodeLog
	b := make([]byte, s.inodeSize)
	if _, err := fsys.ReadAt(f.r, b, at); err != nil {
		return nil, fmt.Errorf("read xfs inode %d: %w", id.Number, err)
	}
	mode, version := be.Uint16(b[2:]), b[4]
	head := inodeHeadV2
	switch {
	case string(b[:2]) != "IN" || mode == 0:
		return nil, bad("there is none")
	case version == 3 && s.v5():
		head = inodeHeadV3
		if !checksumRight(b, 100) {
			return nil, bad("wrong checksum")
		}
		if be.Uint64(b[152:]) != id.Number || [16]byte(b[160:]) != s.metaUUID {
			return nil, bad("is inode %d, or of another file system", be.Uint64(b[152:]))
		}
	case version == 0 || version > 2 || s.v5():
		return nil, bad("version %d", version)
	}
	kind, known := kinds[mode&kindMask]
	size := int64(be.Uint64(b[56:]))
	if !known || size < 0 {
		return nil, bad("mode %#o, %d bytes", mode, size)
	}
	if be.Uint16(b[90:])&inodeRealtime != 0 && kind == source.Regular {
		return nil, fmt.Errorf("inode %d: %w", id.Number, &fsys.UnsupportedError{FileSystem: "xfs", Features: []string{"a realtime section"}})
	}
	links := uint64(be.Uint32(b[16:]))
	if version == 1 {
		links = uint64(be.Uint16(b[6:]))
	}
	r := &record{number: id.Number, size: size}
	r.data = fork{form: b[5], raw: b[head:], extents: uint64(be.Uint32(b[76:]))}
	r.attr = fork{form: formExtents, extents: uint64(be.Uint16(b[80:]))}
	var flags2 uint64
	if version == 3 {
		flags2 = be.Uint64(b[120:])
	}
	if flags2&inodeNrext64 != 0 {
		if s.incompat&incompatNrext64 == 0 {
			return nil, bad("has nrext64, the file system has not")
		}
		r.data.extents, r.attr.extents = be.Uint64(b[24:]), uint64(be.Uint32(b[76:]))
	}
	if begins := int(b[82]) * 8; begins != 0 { // di_forkoff
		if begins >= len(r.data.raw) {
			return nil, bad("attributes at %d of %d bytes", begins, len(r.data.raw))
		}
		r.attr.form, r.attr.raw = b[83], r.data.raw[begins:]
		r.data.raw = r.data.raw[:begins]
	}
	n := &fsys.Inode{ID: id, Links: links, Form: r}
	n.Entry = source.Entry{Type: kind, Mode: uint32(mode & permissionMask), UID: be.Uint32(b[8:]), GID: be.Uint32(b[12:])}
	n.Entry.ModTime = inodeTime(b[40:], flags2&inodeBigtime != 0)
	switch kind {
	case source.Regular:
		n.Entry.Size = size
	case source.CharDevice, source.BlockDevice:
		if r.data.form != formDevice || len(r.data.raw) < 4 {
			return nil, bad("a device of form %d", r.data.form)
		}
		number := be.Uint32(r.data.raw) // as in System V: sysv_major and sysv_minor in linux/kdev_t.h
		n.Entry.Major, n.Entry.Minor = number>>18, number&(1<<18-1)
	}
	return n, nil
}

func inodeTime(b []byte, bigtime bool) time.Time {
	if bigtime {
		n := be.Uint64(b)
		return time.Unix(int64(n/1e9)+bigtimeBegins, int64(n%1e9)).UTC()
	}
	return time.Unix(int64(int32(be.Uint32(b))), int64(be.Uint32(b[4:]))).UTC()
}

// Content gives a regular file's extents. What is allocated and not written reads as zeros.
func (t *tree) Content(n *fsys.Inode) (*fsys.Content, error) {
	r := n.Form.(*record)
	var list []fsys.Extent
	err := t.f.extents(r, r.data, func(e extent) error {
		if e.unwritten {
			return nil
		}
		at, err := t.f.place(e.block, e.count)
		if err != nil {
			return err
		}
		log := t.f.super.blockLog
		list = append(list, fsys.Extent{Off: int64(e.off << log), Len: int64(e.count << log), Data: t.f.r, At: at})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return fsys.NewContent(r.size, list), nil
}

// Readlink gives a symbolic link's target, which is in the inode or in blocks; these have headers in version 5.
func (t *tree) Readlink(n *fsys.Inode) (string, error) {
	r := n.Form.(*record)
	where := fmt.Sprintf("inode %d", r.number)
	if r.size == 0 || r.size > fsys.LinkMost {
		return "", broken(where, "a symbolic link of %d bytes", r.size)
	}
	target := make([]byte, 0, r.size)
	if r.data.form == formLocal {
		if r.size > int64(len(r.data.raw)) {
			return "", broken(where, "a symbolic link of %d bytes", r.size)
		}
		target = append(target, r.data.raw[:r.size]...)
	} else if err := t.f.extents(r, r.data, func(e extent) error {
		part, err := t.linkPart(r, e, len(target))
		target = append(target, part...)
		return err
	}); err != nil {
		return "", err
	}
	if int64(len(target)) < r.size {
		return "", broken(where, "a symbolic link of %d bytes has %d", r.size, len(target))
	}
	for _, c := range target {
		if c == 0 {
			return "", broken(where, "a symbolic link with a zero byte")
		}
	}
	return string(target), nil
}

// linkHead is the length of xfs_dsymlink_hdr.
const linkHead = 56

func (t *tree) linkPart(r *record, e extent, have int) ([]byte, error) {
	f, where := t.f, fmt.Sprintf("inode %d", r.number)
	left := int(r.size) - have
	if left <= 0 || e.unwritten || e.count<<f.super.blockLog > 2*fsys.LinkMost+uint64(f.super.blockSize) {
		return nil, broken(where, "a symbolic link in %d blocks", e.count)
	}
	b := make([]byte, e.count<<f.super.blockLog)
	if err := f.readBlocks(b, e.block); err != nil {
		return nil, err
	}
	if !f.super.v5() {
		return b[:min(left, len(b))], nil
	}
	if err := f.verify(b, valueHeader, e.block, r.number); err != nil {
		return nil, err
	}
	if string(b[:4]) != "XSLM" || int(be.Uint32(b[4:])) != have || int64(be.Uint32(b[8:])) > int64(min(left, len(b)-linkHead)) {
		return nil, broken(where, "a symbolic link's part of %d bytes at %d", be.Uint32(b[8:]), be.Uint32(b[4:]))
	}
	return b[linkHead:][:be.Uint32(b[8:])], nil
}
