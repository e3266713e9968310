package ext4

import (
	"bytes"
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
)

// Of the block that says who has the file system mounted (struct mmp_struct).
const (
	mmpMagic = 0x004d4d50
	mmpClean = 0xff4d4d50 // sequence number: nobody
)

// inodeFeatures are features with the flag of the inodes that make use of them.
var inodeFeatures = []struct{ flag, incompat, ro uint32 }{
	{inodeEAInode, incompatEAInode, 0}, {inodeEncrypted, incompatEncrypt, 0}, {inodeCasefold, incompatCasefold, 0}, {inodeVerity, 0, roVerity},
}

// turnOff turns off the features that GRUB or this package cannot read. Files whose content stands in their
// inode get a block; the other features are only turned off where no inode makes use of them.
func (e *Editor) turnOff() error {
	incompat, ro := e.super.FeatureIncompat&removableIncompat, e.super.FeatureROCompat&removableRO
	if incompat|ro == 0 {
		return nil
	}
	var inline []uint32
	usedIncompat, usedRO := uint32(0), uint32(0)
	err := e.eachInode(func(n *record) error {
		for _, x := range inodeFeatures {
			if n.flags&x.flag != 0 {
				usedIncompat, usedRO = usedIncompat|x.incompat&incompat, usedRO|x.ro&ro
			}
		}
		if n.flags&inodeInlineData != 0 {
			inline = append(inline, n.number)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if usedIncompat|usedRO != 0 {
		return &UnsupportedError{append(names(usedIncompat, incompatNames), names(usedRO, roNames)...)}
	}
	if incompat&incompatMMP != 0 {
		if err := e.dropMMP(); err != nil {
			return err
		}
	}
	for _, number := range inline {
		if err := e.outline(number); err != nil {
			return err
		}
	}
	if incompat&incompatCasefold != 0 {
		e.super.Encoding, e.super.EncodingFlags = 0, 0
	}
	e.repairs.TurnedOff = append(names(incompat, incompatNames), names(ro, roNames)...)
	e.super.FeatureIncompat &^= incompat
	e.super.FeatureROCompat &^= ro
	return e.backups()
}

// eachInode calls use for all inodes in use.
func (e *Editor) eachInode(use func(n *record) error) error {
	perBlock := uint32(e.blockSize / e.inodeSize)
	raw := make([]byte, e.blockSize)
	for group := range e.groups {
		bitmap, err := e.inodeBitmap(group)
		if err != nil {
			return err
		}
		for i := range e.usedInodes(group) {
			if i%perBlock == 0 {
				if err := e.readBlocks(raw, e.descs[group].InodeTable+uint64(i/perBlock)); err != nil {
					return err
				}
			}
			inode := raw[int(i%perBlock)*e.inodeSize:][:e.inodeSize]
			if bitmap[i/8]>>(i%8)&1 == 0 || le.Uint16(inode) == 0 {
				continue
			}
			n, err := e.decodeInode(group*e.inodesPerGroup+i+1, inode)
			if err != nil {
				return err
			}
			if err := use(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// backups gives the copies of the superblock its features.
func (e *Editor) backups() error {
	raw := make([]byte, superSize)
	for group := uint32(1); group < e.groups; group++ {
		if !e.hasBackup(group) {
			continue
		}
		at := int64(e.groupStart(group)) * int64(e.blockSize)
		if _, err := fsys.ReadAt(e.over, raw, at); err != nil {
			return err
		}
		s, err := decodeSuperblock(raw)
		if err != nil {
			return err
		}
		if s.Magic != superMagic {
			return broken(fmt.Sprintf("group %d", group), "no copy of the superblock")
		}
		s.FeatureIncompat, s.FeatureROCompat = e.super.FeatureIncompat, e.super.FeatureROCompat
		s.Encoding, s.EncodingFlags = e.super.Encoding, e.super.EncodingFlags
		s.MMPBlock, s.MMPInterval = e.super.MMPBlock, e.super.MMPInterval
		if err := e.patch(at, s.encode()); err != nil {
			return err
		}
	}
	return nil
}

func (e *Editor) dropMMP() error {
	block := e.super.MMPBlock
	raw := make([]byte, e.blockSize)
	if err := e.within(span{block, 1}); err != nil {
		return broken("superblock", "mmp in %v", err)
	}
	if err := e.readBlocks(raw, block); err != nil {
		return err
	}
	if le.Uint32(raw) != mmpMagic || le.Uint32(raw[4:]) != mmpClean {
		return fmt.Errorf("%w: it is mounted somewhere, or was (mmp)", ErrUnclean)
	}
	e.super.MMPBlock, e.super.MMPInterval = 0, 0
	return e.freeBlocks(span{block, 1})
}

// inlineName is the attribute for content that i_block has no room for: "system.data".
const (
	inlineIndex = 7
	inlineName  = "data"
)

// outline moves content out of an inode.
func (e *Editor) outline(number uint32) error {
	n, err := e.readInode(number)
	if err != nil {
		return err
	}
	raw, err := e.rawInode(number)
	if err != nil {
		return err
	}
	f := &draft{n, raw}
	first := bytes.Clone(n.block[:])
	attributes, err := n.insideXattrs()
	if err != nil {
		return err
	}
	var rest []byte
	var kept []xattr
	for _, x := range attributes {
		if x.index == inlineIndex && x.name == inlineName {
			rest = bytes.Clone(x.value)
		} else {
			kept = append(kept, xattr{x.index, x.name, bytes.Clone(x.value)})
		}
	}
	inside := f.raw[len(f.raw)-len(n.inside):]
	clear(inside)
	if len(kept) > 0 {
		le.PutUint32(inside, xattrMagic)
		putXattrs(inside[4:], 0, kept, false)
	}
	content := append(bytes.Clone(first), rest...)
	if n.size > uint64(len(content)) {
		return broken(n.where(), "%d bytes, %d of them in the inode", n.size, len(content))
	}
	f.setFlags(0, inodeInlineData)
	switch n.kind() {
	case kindRegular, kindSymlink:
		content = content[:n.size]
	case kindFolder:
		if content, err = e.outlineFolder(n, first, rest); err != nil {
			return err
		}
	default:
		return broken(n.where(), "mode %#o, and content in the inode", n.mode)
	}
	if err := e.fill(f, int64(len(content)), bytes.NewReader(content)); err != nil {
		return err
	}
	return e.save(f)
}

// outlineFolder makes a block of a folder whose entries stand in its inode: behind the number of the folder above in
// i_block, and in the attribute.
func (e *Editor) outlineFolder(n *record, first, rest []byte) ([]byte, error) {
	kind := e.entryKind(kindFolder)
	entries := []folderEntry{{name: ".", number: n.number, kind: kind}, {name: "..", number: le.Uint32(first), kind: kind}}
	for _, part := range [][]byte{first[4:], rest} {
		for at := 0; at < len(part); {
			if len(part)-at < entryHead {
				return nil, broken(n.where(), "entry at %d behind the end", at)
			}
			size, length := int(le.Uint16(part[at+4:])), int(part[at+6])
			if size < entryHead+(length+3)&^3 || size < 12 || size > len(part)-at {
				return nil, broken(n.where(), "entry at %d of %d bytes with a name of %d", at, size, length)
			}
			if number := le.Uint32(part[at:]); number != 0 {
				entries = append(entries, folderEntry{name: string(part[at+entryHead:][:length]), number: number, kind: part[at+7]})
			}
			at += size
		}
	}
	form := e.form(n)
	if fitting(entries, form.room()) < len(entries) {
		return nil, broken(n.where(), "folder of %d entries in its inode", len(entries))
	}
	return form.leaf(entries), nil
}
