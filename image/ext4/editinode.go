package ext4

import (
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/source"
)

// draft is an inode that is being changed.
type draft struct {
	*record // as it was loaded, or saved last
	raw     []byte
}

// load reads an inode that is in use and that this package can change.
func (e *Editor) load(number uint32) (*draft, error) {
	n, err := e.readInode(number)
	if err != nil {
		return nil, err
	}
	if bad := n.flags & (inodeEncrypted | inodeEAInode | inodeInlineData | inodeVerity | inodeCasefold); bad != 0 {
		return nil, fmt.Errorf("%w: inode %d with flags %#x cannot be changed", ErrUnsupported, number, bad)
	}
	raw, err := e.rawInode(number)
	if err != nil {
		return nil, err
	}
	return &draft{n, raw}, nil
}

func (e *Editor) rawInode(number uint32) ([]byte, error) {
	block, at := e.inodePlace(number)
	raw := make([]byte, e.blockSize)
	if err := e.readBlocks(raw, block); err != nil {
		return nil, err
	}
	return raw[at:][:e.inodeSize], nil
}

// save writes an inode with its checksum.
func (e *Editor) save(f *draft) error {
	if e.checksums {
		crc := inodeChecksum(inodeSeed(e.seed, f.number, le.Uint32(f.raw[0x64:])), f.raw)
		le.PutUint16(f.raw[inodeCsumLo:], uint16(crc))
		if hasCsumHi(f.raw) {
			le.PutUint16(f.raw[inodeCsumHi:], uint16(crc>>16))
		}
	}
	block, at := e.inodePlace(f.number)
	if err := e.patch(int64(block)*int64(e.blockSize)+int64(at), f.raw); err != nil {
		return err
	}
	n, err := e.decodeInode(f.number, f.raw)
	f.record = n
	return err
}

// near is the group in which an inode's blocks are looked for first.
func (e *Editor) near(number uint32) uint32 { return (number - 1) / e.inodesPerGroup }

// Places of the times in an inode, and of their extra bits.
type timePlace struct{ low, extra int }

var (
	placeAccess = timePlace{0x08, 0x8c}
	placeChange = timePlace{0x0c, 0x84}
	placeModify = timePlace{0x10, 0x88}
	placeCreate = timePlace{0x90, 0x94}
)

// setTime sets a time as far as the inode has room for it.
func (f *draft) setTime(p timePlace, t timestamp) {
	end := inodeBase
	if len(f.raw) > inodeBase {
		end += int(le.Uint16(f.raw[inodeBase:]))
	}
	if p.low+4 <= end {
		le.PutUint32(f.raw[p.low:], t.low())
	}
	if p.extra+4 <= end {
		le.PutUint32(f.raw[p.extra:], t.extra())
	}
}

func (f *draft) setFlags(set, unset uint32) {
	le.PutUint32(f.raw[0x20:], le.Uint32(f.raw[0x20:])&^unset|set)
}

func (f *draft) setLinks(links uint16) { le.PutUint16(f.raw[0x1a:], links) }

func (f *draft) setSize(size uint64) {
	le.PutUint32(f.raw[0x04:], uint32(size))
	le.PutUint32(f.raw[0x6c:], uint32(size>>32))
}

// setSectors says how many blocks an inode owns, in all.
func (e *Editor) setSectors(f *draft, blocks uint64) error {
	sectors := blocks * uint64(e.blockSize/512)
	huge := e.super.FeatureROCompat&roHugeFile != 0
	if sectors >= 1<<48 || !huge && sectors >= 1<<32 {
		return fmt.Errorf("%w: a file of %d blocks", ErrTree, blocks)
	}
	le.PutUint32(f.raw[0x1c:], uint32(sectors))
	if huge {
		le.PutUint16(f.raw[0x74:], uint16(sectors>>32))
		f.setFlags(0, inodeHugeFile)
	}
	return nil
}

// blocksOf gives an inode's blocks: content, and the nodes that lead to it.
func (e *Editor) blocksOf(n *record) (content []extent, nodes []span, err error) {
	err = e.blockMap(n, func(m mapping) error {
		switch {
		case m.metadata:
			nodes = append(nodes, m.blocks)
		case m.unwritten:
			content = append(content, extent{uint32(m.logical), uint32(m.blocks.count), m.blocks.start, true})
		default:
			content = addExtent(content, uint32(m.logical), m.blocks)
		}
		return nil
	})
	return content, nodes, err
}

// setBlocks makes an inode own these blocks of content. Those that it had before and the nodes that led to
// them must have been given back.
func (e *Editor) setBlocks(f *draft, list []extent) error {
	owned := uint64(0)
	if f.xattrBlock != 0 {
		owned++
	}
	for _, x := range list {
		owned += uint64(x.length)
	}
	take := func() (uint64, error) {
		owned++
		return e.takeBlock(e.near(f.number))
	}
	var root [60]byte
	var err error
	if e.super.FeatureIncompat&incompatExtents != 0 {
		tree := extentTree{size: e.blockSize, checksums: e.checksums, seed: f.seed, take: take, put: e.over.write}
		root, err = tree.build(list)
		f.setFlags(inodeExtents, 0)
	} else {
		tree := indirectTree{size: e.blockSize, list: list, take: take, put: e.over.write}
		root, err = tree.build()
		f.setFlags(0, inodeExtents)
	}
	if err != nil {
		return err
	}
	copy(f.raw[0x28:0x64], root[:])
	return e.setSectors(f, owned)
}

// empty gives all blocks of an inode's content back.
func (e *Editor) empty(f *draft) error {
	content, nodes, err := e.blocksOf(f.record)
	if err != nil {
		return err
	}
	for _, x := range content {
		nodes = append(nodes, span{x.start, uint64(x.length)})
	}
	for _, s := range nodes {
		if err := e.freeBlocks(s); err != nil {
			return err
		}
	}
	return nil
}

const copyPiece = 1 << 20

// fill gives an inode without blocks its content.
func (e *Editor) fill(f *draft, size int64, content io.Reader) error {
	whole := int64(e.blockSize)
	if size < 0 || size > whole<<32-whole {
		return fmt.Errorf("%w: a file of %d bytes", ErrTree, size)
	}
	if size > 1<<31-1 && e.super.FeatureROCompat&roLargeFile == 0 {
		if e.super.RevLevel == 0 {
			return fmt.Errorf("%w: a file of %d bytes in a file system of revision 0", ErrTree, size)
		}
		e.super.FeatureROCompat |= roLargeFile
	}
	f.setSize(uint64(size))
	count := uint64((size + whole - 1) / whole)
	if count == 0 {
		return e.setBlocks(f, nil)
	}
	runs, err := e.takeBlocks(count, e.near(f.number))
	if err != nil {
		return err
	}
	var list []extent
	logical, left := uint32(0), size
	buffer := make([]byte, max(min(copyPiece, int64(count)*whole), whole))
	for _, run := range runs {
		list = addExtent(list, logical, run)
		logical += uint32(run.count)
		for run.count > 0 {
			piece := buffer[:min(int64(len(buffer)), int64(run.count)*whole)]
			part := piece[:min(int64(len(piece)), left)]
			clear(piece[len(part):])
			if _, err := io.ReadFull(content, part); err != nil {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("content at %d of %d bytes: %w", size-left, size, err)
			}
			if err := e.over.write(run.start, piece); err != nil {
				return err
			}
			left -= int64(len(part))
			blocks := uint64(len(piece)) / uint64(whole)
			run.start, run.count = run.start+blocks, run.count-blocks
		}
	}
	return e.setBlocks(f, list)
}

// create makes an inode without content. What the entry does not say is as in a new file of the kernel's.
func (e *Editor) create(folder *draft, entry source.Entry, mode uint16) (*draft, error) {
	number, err := e.takeInode(e.near(folder.number), mode == modeFolder)
	if err != nil {
		return nil, err
	}
	f := &draft{raw: make([]byte, e.inodeSize)}
	links := uint16(1)
	if mode == modeFolder {
		links = 2
	}
	le.PutUint16(f.raw[0x00:], mode|uint16(entry.Mode&0o7777))
	le.PutUint16(f.raw[0x02:], uint16(entry.UID))
	le.PutUint16(f.raw[0x18:], uint16(entry.GID))
	le.PutUint16(f.raw[0x78:], uint16(entry.UID>>16))
	le.PutUint16(f.raw[0x7a:], uint16(entry.GID>>16))
	f.setLinks(links)
	if e.inodeSize > inodeBase {
		le.PutUint16(f.raw[inodeBase:], extraSize)
		if folder.flags&inodeProjectInherit != 0 && e.super.FeatureROCompat&roProject != 0 {
			copy(f.raw[placeProject:][:4], folder.raw[placeProject:])
			if mode == modeFolder {
				f.setFlags(inodeProjectInherit, 0)
			}
		}
	}
	modified := e.now
	if !entry.ModTime.IsZero() {
		modified = newTimestamp(entry.ModTime)
	}
	f.setTime(placeAccess, modified)
	f.setTime(placeModify, modified)
	f.setTime(placeChange, e.now)
	f.setTime(placeCreate, e.now)
	if f.record, err = e.decodeUnsealed(number, f.raw); err != nil {
		return nil, err
	}
	return f, e.setXattrs(f, entry.Xattrs)
}

// decodeUnsealed decodes an inode whose checksum is not set yet.
func (e *Editor) decodeUnsealed(number uint32, raw []byte) (*record, error) {
	f := &draft{&record{number: number}, raw}
	if err := e.save(f); err != nil {
		return nil, err
	}
	return f.record, nil
}

// setXattrs gives an inode that has none its attributes.
func (e *Editor) setXattrs(f *draft, list []source.Xattr) error {
	inside, block, err := layXattrs(list, len(f.inside), e.blockSize)
	if err != nil {
		return err
	}
	copy(f.raw[len(f.raw)-len(f.inside):], inside)
	if block == nil {
		return nil
	}
	if e.super.FeatureCompat&compatExtAttr == 0 {
		return fmt.Errorf("%w: the file system has no blocks of attributes (ext_attr)", ErrXattr)
	}
	at, err := e.takeBlock(e.near(f.number))
	if err != nil {
		return err
	}
	if e.checksums {
		le.PutUint32(block[xattrBlockCsum:], xattrChecksum(e.seed, at, block))
	}
	le.PutUint32(f.raw[0x68:], uint32(at))
	le.PutUint16(f.raw[0x76:], uint16(at>>32))
	f.xattrBlock = at
	if err := e.setSectors(f, 1); err != nil {
		return err
	}
	return e.over.write(at, block)
}

// dropXattrs gives up an inode's share in its block of attributes.
func (e *Editor) dropXattrs(n *record) error {
	_, owners, err := e.blockXattrs(n)
	if err != nil || n.xattrBlock == 0 {
		return err
	}
	if owners <= 1 {
		return e.freeBlocks(span{n.xattrBlock, 1})
	}
	raw := make([]byte, e.blockSize)
	if err := e.readBlocks(raw, n.xattrBlock); err != nil {
		return err
	}
	le.PutUint32(raw[4:], owners-1)
	if e.checksums {
		le.PutUint32(raw[xattrBlockCsum:], xattrChecksum(e.seed, n.xattrBlock, raw))
	}
	return e.over.write(n.xattrBlock, raw)
}

// release deletes an inode that no name leads to any more.
func (e *Editor) release(f *draft) error {
	if err := e.empty(f); err != nil {
		return err
	}
	if err := e.dropXattrs(f.record); err != nil {
		return err
	}
	if err := e.freeInode(f.number, f.kind() == kindFolder); err != nil {
		return err
	}
	deleted := &draft{f.record, make([]byte, len(f.raw))}
	copy(deleted.raw[0x64:0x68], f.raw[0x64:]) // i_generation
	if len(f.raw) > inodeBase {
		copy(deleted.raw[inodeBase:inodeBase+2], f.raw[inodeBase:])
	}
	le.PutUint32(deleted.raw[0x14:], max(e.now.low(), 1))
	return e.save(deleted)
}
