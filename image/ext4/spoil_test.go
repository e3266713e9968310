package ext4

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"testing"
)

// spoiler changes a good image, and mends checksums so that the check behind them is reached.
type spoiler struct {
	t     *testing.T
	image []byte
	r     *Reader
}

func (s *spoiler) bytes(block uint64) []byte {
	return s.image[block*blockSize:][:blockSize]
}

func (s *spoiler) super(change func(*superblock)) {
	change(s.r.super)
	copy(s.image[superOffset:], s.r.super.encode())
}

func (s *spoiler) group(group uint32, change func(*groupDesc)) {
	raw := s.bytes(1)[group*descSize:][:descSize]
	d := decodeGroupDesc(raw)
	change(&d)
	d.encode(raw)
	le.PutUint16(raw[groupDescCsum:], groupChecksum(s.r.seed, group, raw))
}

func (s *spoiler) blockBitmap(change func(b []byte)) {
	b := s.bytes(s.r.descs[0].BlockBitmap)
	change(b)
	s.group(0, func(d *groupDesc) { d.BlockBitmapCsum = crc32c(s.r.seed, b) })
}

func (s *spoiler) inodeBitmap(change func(b []byte)) {
	b := s.bytes(s.r.descs[0].InodeBitmap)
	change(b)
	s.group(0, func(d *groupDesc) { d.InodeBitmapCsum = crc32c(s.r.seed, b[:s.r.inodesPerGroup/8]) })
}

func (s *spoiler) find(path string) *record {
	s.t.Helper()
	i := strings.LastIndexByte(path, '/')
	for _, e := range must(s.r.entries(must(s.r.find(path[:i])))) {
		if e.name == path[i+1:] {
			return must(s.r.readInode(e.number))
		}
	}
	return must(s.r.find(path))
}

func (s *spoiler) inode(number uint32, change func(raw []byte)) {
	block, at := s.r.inodePlace(number)
	raw := s.bytes(block)[at:][:inodeSize]
	change(raw)
	crc := inodeChecksum(inodeSeed(s.r.seed, number, le.Uint32(raw[0x64:])), raw)
	le.PutUint16(raw[inodeCsumLo:], uint16(crc))
	le.PutUint16(raw[inodeCsumHi:], uint16(crc>>16))
}

func (s *spoiler) file(path string, change func(raw []byte)) { s.inode(s.find(path).number, change) }

// place is where the i-th block of a folder is.
func (s *spoiler) place(path string, i int) []byte {
	blocks, err := s.r.folderBlocks(s.find(path))
	if err != nil {
		s.t.Fatal(err)
	}
	return s.bytes(blocks[i])
}

func (s *spoiler) leaf(path string, i int, change func(b []byte)) {
	b := s.place(path, i)
	change(b)
	le.PutUint32(b[blockSize-4:], crc32c(s.find(path).seed, b[:blockSize-dirTailSize]))
}

func (s *spoiler) treeRoot(path string, change func(b []byte)) {
	b := s.place(path, 0)
	change(b)
	limit, count := int(le.Uint16(b[rootEntries:])), int(le.Uint16(b[rootEntries+2:]))
	tail := b[min(rootEntries+indexEntry*limit, blockSize-8):]
	le.PutUint32(tail[4:], indexChecksum(s.find(path).seed, b, min(rootEntries+indexEntry*count, blockSize-8), tail))
}

// entry finds a name in a block.
func (s *spoiler) entry(b []byte, name string) []byte {
	s.t.Helper()
	i := bytes.Index(b, append([]byte{byte(len(name))}, append([]byte{b[bytes.Index(b, []byte(name))-1]}, name...)...))
	if i < 6 {
		s.t.Fatalf("no %q in the block", name)
	}
	return b[i-6:]
}

func (s *spoiler) xattrBlock(change func(b []byte)) {
	n := s.find("/attributes")
	b := s.bytes(n.xattrBlock)
	change(b)
	le.PutUint32(b[xattrBlockCsum:], xattrChecksum(s.r.seed, n.xattrBlock, b))
}

func (s *spoiler) extentBlock(change func(b []byte)) {
	n := s.find("/scattered")
	b := s.bytes(uint64(le.Uint32(n.block[extentEntry+4:])))
	change(b)
	le.PutUint32(b[extentTail:], crc32c(n.seed, b[:extentTail]))
}

func (s *spoiler) journal() []byte {
	n := must(s.r.readInode(journalInode))
	return s.bytes(must(s.r.journal(n)))
}

func put16(raw []byte, at int, n uint16) { le.PutUint16(raw[at:], n) }
func put32(raw []byte, at int, n uint32) { le.PutUint32(raw[at:], n) }

var spoils = []struct {
	name, problem string
	spoil         func(s *spoiler)
}{
	{"superblock's checksum", "checksum", func(s *spoiler) { s.image[superOffset+0x20]++ }},
	{"more blocks than there are", "4097 blocks", func(s *spoiler) { s.super(func(b *superblock) { b.BlocksCountLo++ }) }},
	{"no blocks", "0 blocks", func(s *spoiler) { s.super(func(b *superblock) { b.BlocksCountLo = 0 }) }},
	{"first block", "first block", func(s *spoiler) { s.super(func(b *superblock) { b.FirstDataBlock = 1 }) }},
	{"block size", "block size", func(s *spoiler) { s.super(func(b *superblock) { b.LogBlockSize = 60 }) }},
	{"cluster size", "cluster size", func(s *spoiler) { s.super(func(b *superblock) { b.LogClusterSize = 3 }) }},
	{"no group", "blocks in a group", func(s *spoiler) { s.super(func(b *superblock) { b.BlocksPerGroup = 0 }) }},
	{"odd group", "blocks in a group", func(s *spoiler) { s.super(func(b *superblock) { b.BlocksPerGroup = 1001 }) }},
	{"large group", "blocks in a group", func(s *spoiler) { s.super(func(b *superblock) { b.BlocksPerGroup = 65536 }) }},
	{"meta block groups", "first meta block group 9", func(s *spoiler) {
		s.super(func(b *superblock) { b.FeatureIncompat |= incompatMetaBG; b.FirstMetaBG = 9 })
	}},
	{"no inodes", "inodes in a group", func(s *spoiler) { s.super(func(b *superblock) { b.InodesPerGroup = 0 }) }},
	{"inodes", "inodes", func(s *spoiler) { s.super(func(b *superblock) { b.InodesCount++ }) }},
	{"inode size", "inodes of 300 bytes", func(s *spoiler) { s.super(func(b *superblock) { b.InodeSize = 300 }) }},
	{"first inode", "first inode", func(s *spoiler) { s.super(func(b *superblock) { b.FirstIno = 2 }) }},
	{"descriptor size", "descriptors of 32 bytes", func(s *spoiler) { s.super(func(b *superblock) { b.DescSize = 32 }) }},
	{"reserve", "reserved", func(s *spoiler) { s.super(func(b *superblock) { b.ReservedGDT = 2000 }) }},
	{"kind of checksum", "type 2", func(s *spoiler) { s.super(func(b *superblock) { b.ChecksumType = 2 }) }},
	{"two kinds of checksum", "both kinds", func(s *spoiler) { s.super(func(b *superblock) { b.FeatureROCompat |= roGDTCsum }) }},
	{"free blocks", "blocks free", func(s *spoiler) { s.super(func(b *superblock) { b.FreeBlocksLo++ }) }},
	{"free inodes", "inodes free", func(s *spoiler) { s.super(func(b *superblock) { b.FreeInodes++ }) }},
	{"group's checksum", "group 0: checksum", func(s *spoiler) { s.bytes(1)[0]++ }},
	{"group's bitmap outside", "metadata at block", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.BlockBitmap = 1 << 40 }) }},
	{"group's table outside", "metadata at block", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.InodeTable = 4095 }) }},
	{"group's bitmap twice", "two owners", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.BlockBitmap = d.InodeBitmap }) }},
	{"group's free blocks", "blocks free", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.FreeBlocks++ }) }},
	{"group's free inodes", "counted", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.FreeInodes++ }) }},
	{"group's folders", "folders", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.UsedDirs++ }) }},
	{"group's unused inodes", "never used", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.ItableUnused++ }) }},
	{"group flagged unused", "never used", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.Flags |= groupInodeUninit }) }},
	{"block bitmap flagged unwritten", "in use and marked free", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.Flags |= groupBlockUninit }) }},
	{"block bitmap's checksum", "block bitmap: checksum", func(s *spoiler) { s.bytes(s.r.descs[0].BlockBitmap)[4000] ^= 1 }},
	{"block marked free", "marked free", func(s *spoiler) { s.blockBitmap(func(b []byte) { b[0] &^= 1 }) }},
	{"block marked used", "belongs to nothing", func(s *spoiler) { s.blockBitmap(func(b []byte) { b[511] |= 0x80 }) }},
	{"block bitmap's padding", "padding", func(s *spoiler) { s.blockBitmap(func(b []byte) { b[4095] = 0x7f }) }},
	{"inode bitmap's checksum", "inode bitmap: checksum", func(s *spoiler) { s.bytes(s.r.descs[0].InodeBitmap)[10] ^= 1 }},
	{"inode marked free", "marked free", func(s *spoiler) { s.inodeBitmap(func(b []byte) { b[1] &^= 8 }) }},
	{"inode marked used", "never used", func(s *spoiler) { s.inodeBitmap(func(b []byte) { b[100] |= 1 }) }},
	{"inode bitmap's padding", "padding", func(s *spoiler) { s.inodeBitmap(func(b []byte) { b[4095] = 0 }) }},
	{"inode's checksum", "checksum", func(s *spoiler) {
		block, at := s.r.inodePlace(s.find("/blocks").number)
		s.bytes(block)[at+8]++
	}},
	{"mode", "mode", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0, 0x3000) }) }},
	{"no links", "0 links", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x1a, 0) }) }},
	{"too many links", "3 links, 2 counted", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x1a, 3) }) }},
	{"folder's links", "9 links", func(s *spoiler) { s.file("/home", func(raw []byte) { put16(raw, 0x1a, 9) }) }},
	{"deleted", "deleted", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put32(raw, 0x14, 1) }) }},
	{"sectors", "sectors", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put32(raw, 0x1c, 1) }) }},
	{"flags", "flags", func(s *spoiler) {
		s.file("/blocks", func(raw []byte) { put32(raw, 0x20, inodeExtents|inodeEncrypted) })
	}},
	{"size below content", "content up to", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put32(raw, 4, 4096) }) }},
	{"size over all", "size", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put32(raw, 0x6c, 1<<31) }) }},
	{"extra bytes", "extra bytes", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, inodeBase, 129) }) }},
	{"extent's magic", "magic number", func(s *spoiler) { s.file("/blocks", func(raw []byte) { raw[0x28]++ }) }},
	{"extent's depth", "depth 6", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x28+6, 6) }) }},
	{"extent's count", "5 of 4", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x28+2, 5) }) }},
	{"extent's room", "1 of 5", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x28+4, 5) }) }},
	{"extent of nothing", "extent of 0 blocks", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x28+16, 0) }) }},
	{"extent outside", "outside", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put16(raw, 0x28+18, 1) }) }},
	{"extent of metadata", "two owners", func(s *spoiler) { s.file("/blocks", func(raw []byte) { put32(raw, 0x28+20, 0) }) }},
	{"extent of another file", "two owners", func(s *spoiler) {
		s.file("/block", func(raw []byte) { copy(raw[0x28+20:0x28+24], s.find("/blocks").block[20:]) })
	}},
	{"extent block outside", "outside", func(s *spoiler) { s.file("/scattered", func(raw []byte) { put32(raw, 0x28+16, 1<<31) }) }},
	{"extent block's checksum", "node with checksum", func(s *spoiler) {
		s.extentBlock(func([]byte) {})
		s.bytes(uint64(le.Uint32(s.find("/scattered").block[16:])))[2000]++
	}},
	{"extent block's depth", "depth", func(s *spoiler) { s.extentBlock(func(b []byte) { b[6] = 1 }) }},
	{"extents out of order", "not within", func(s *spoiler) { s.extentBlock(func(b []byte) { put32(b, 24, 0) }) }},
	{"extent blocks out of order", "nodes out of order", func(s *spoiler) { s.file("/scattered", func(raw []byte) { put16(raw, 0x28+2, 2) }) }},
	{"extent block's beginning", "begins with", func(s *spoiler) { s.extentBlock(func(b []byte) { put32(b, 12, 5) }) }},
	{"symbolic link's size", "symbolic link of", func(s *spoiler) { s.file("/fast", func(raw []byte) { put32(raw, 4, 30) }) }},
	{"long symbolic link's size", "symbolic link of", func(s *spoiler) { s.file("/slow", func(raw []byte) { put32(raw, 4, 61) }) }},
	{"empty symbolic link", "symbolic link of 0", func(s *spoiler) { s.file("/fast", func(raw []byte) { put32(raw, 4, 0) }) }},
	{"folder's size", "folder of", func(s *spoiler) { s.file("/home", func(raw []byte) { put32(raw, 4, 8192) }) }},
	{"attribute within, too long", "attribute", func(s *spoiler) { s.file("/few", func(raw []byte) { put32(raw, 0xa4+8, 2000) }) }},
	{"attributes outside", "attributes in", func(s *spoiler) { s.file("/attributes", func(raw []byte) { put32(raw, 0x68, 1<<30) }) }},
	{"attributes elsewhere", "holds no attributes", func(s *spoiler) { s.file("/attributes", func(raw []byte) { put32(raw, 0x68, 3000) }) }},
	{"attributes' checksum", "checksum", func(s *spoiler) { s.bytes(s.find("/attributes").xattrBlock)[4090]++ }},
	{"attributes' hash", "wrong hash", func(s *spoiler) { s.xattrBlock(func(b []byte) { b[4095]++ }) }},
	{"attributes' owners", "attributes of 2 inodes", func(s *spoiler) { s.xattrBlock(func(b []byte) { b[4] = 2 }) }},
	{"attribute's name", "attribute", func(s *spoiler) { s.xattrBlock(func(b []byte) { b[33] = 77 }) }},
	{"attribute in an inode", "inode of its own", func(s *spoiler) { s.xattrBlock(func(b []byte) { b[36] = 12 }) }},
	{"folder's checksum", "checksum", func(s *spoiler) { s.place("/home", 0)[4000]++ }},
	{"folder without checksum", "no checksum", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { b[blockSize-5] = 0 }) }},
	{"entry of no size", "of 0 bytes", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put16(b, 4, 0) }) }},
	{"entry over the end", "bytes with a name", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put16(b, 4, 4092) }) }},
	{"entry's name over its end", "with a name of", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { b[24+6] = 40 }) }},
	{"no dot", "entry 0", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { b[8] = 'x' }) }},
	{"another's dot", "\".\" is", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(b, 0, 11) }) }},
	{"wrong parent", "\"..\" is", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(b, 12, 11) }) }},
	{"slash in a name", "named", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { s.entry(b, "owned")[9] = '/' }) }},
	{"name of nothing", "not in use", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(s.entry(b, "owned"), 0, 900) }) }},
	{"name of no inode", "not in use", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(s.entry(b, "owned"), 0, 1<<31) }) }},
	{"name of the journal", "not in use", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(s.entry(b, "owned"), 0, 8) }) }},
	{"kind in a name", "kind", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { s.entry(b, "owned")[7] = 2 }) }},
	{"name twice", "twice", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { copy(s.entry(b, "zlink")[8:], "owned") }) }},
	{"folder's second name", "\"..\" is", func(s *spoiler) {
		s.leaf("/home", 0, func(b []byte) {
			e := s.entry(b, "owned")
			put32(e, 0, 11)
			e[7] = kindFolder
		})
	}},
	{"folders in a circle", "root does not lead", func(s *spoiler) {
		made, it := s.find("/made").number, s.find("/made/for").number
		s.leaf("/made", 0, func(b []byte) { put32(b, 12, it) })
		s.leaf("/made/for", 0, func(b []byte) {
			e := s.entry(b, "it")
			put32(e, 0, made)
			e[7] = kindFolder
		})
		s.leaf("/", 0, func(b []byte) { put32(s.entry(b, "made"), 0, 0) })
	}},
	{"tree's checksum", "hash tree: checksum", func(s *spoiler) { s.place("/tree", 0)[rootEntries+4]++ }},
	{"tree's version", "hash version 9", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { b[rootInfo+4] = 9 }) }},
	{"tree's other version", "wrong leaf", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { b[rootInfo+4] = hashTEA }) }},
	{"tree's levels", "2 levels", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { b[rootInfo+6] = 2 }) }},
	{"tree's limit", "entries", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { put16(b, rootEntries, 600) }) }},
	{"tree's order", "out of order", func(s *spoiler) {
		s.treeRoot("/tree", func(b []byte) { put32(b, rootEntries+8, 1<<31); put32(b, rootEntries+16, 1<<30) })
	}},
	{"tree's leaf outside", "leads to block", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { put32(b, rootEntries+4, 99) }) }},
	{"tree's leaf twice", "leads to block", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { put32(b, rootEntries+4, 2) }) }},
	{"tree without a leaf", "tree of", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { b[rootEntries+2]-- }) }},
	{"tree's bounds", "wrong leaf", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { put32(b, rootEntries+8, 2) }) }},
	{"journal's magic", "without a superblock", func(s *spoiler) { s.journal()[0] = 0 }},
	{"journal's length", "journal of", func(s *spoiler) { s.journal()[journalLength]++ }},
	{"journal to replay", "to be replayed", func(s *spoiler) { binary.BigEndian.PutUint32(s.journal()[journalStart:], 1) }},
	{"journal's checksum", "journal superblock with checksum", func(s *spoiler) { s.journal()[journalIncompat+3] = journalCsumV3 }},
	{"reserve's list", "does not list", func(s *spoiler) { s.bytes(2)[0]++ }},
	{"reserve's lists", "list the reserved", func(s *spoiler) {
		s.bytes(uint64(le.Uint32(must(s.r.readInode(resizeInode)).block[4*indirectDouble:])))[100]++
	}},
	{"journal's inode", "not in use", func(s *spoiler) { s.super(func(b *superblock) { b.JournalInum = 900 }) }},
	{"journal's size", "journal of 4198400 bytes", func(s *spoiler) { s.inode(journalInode, func(raw []byte) { put32(raw, 4, 1025*blockSize) }) }},
	{"journal with a hole", "hole", func(s *spoiler) {
		s.inode(journalInode, func(raw []byte) {
			put32(raw, 0x28+12, 1)
			put32(raw, 4, 1025*blockSize)
		})
	}},
	{"extents without the feature", "not among the features", func(s *spoiler) { s.super(func(b *superblock) { b.FeatureIncompat &^= incompatExtents }) }},
	{"symbolic link without a block", "with 0 blocks", func(s *spoiler) {
		s.file("/slow", func(raw []byte) {
			put16(raw, 0x28+2, 0)
			put32(raw, 0x1c, 0)
		})
	}},
	{"reserve with blocks of its own", "of its own", func(s *spoiler) { s.inode(resizeInode, func(raw []byte) { raw[0x28] = 9 }) }},
	{"reserve of other blocks", "two owners", func(s *spoiler) { s.inode(resizeInode, func(raw []byte) { put32(raw, 0x28+4*indirectDouble, 0) }) }},
	{"reserve's sectors", "sectors", func(s *spoiler) { s.inode(resizeInode, func(raw []byte) { raw[0x1c]++ }) }},
	{"second name of a folder", "second name", func(s *spoiler) {
		s.leaf("/", 0, func(b []byte) { put32(s.entry(b, "few"), 0, s.find("/home").number) })
	}},
	{"root's parent", "its parent", func(s *spoiler) { s.leaf("/", 0, func(b []byte) { put32(b, 12, 11) }) }},
	{"parent no folder", "no folder", func(s *spoiler) {
		s.leaf("/home", 0, func(b []byte) {
			put32(b, 12, s.find("/blocks").number)
			b[12+7] = kindRegular
		})
	}},
	{"entry too near the end", "behind the end", func(s *spoiler) { s.leaf("/few", 0, func(b []byte) { put16(b, 16, blockSize-dirTailSize-12-4) }) }},
	{"root of a tree within entries", "within entries", func(s *spoiler) { s.treeRoot("/tree", func(b []byte) { put16(b, 16, 12) }) }},
	{"attribute over its name", "overlap", func(s *spoiler) { s.file("/few", func(raw []byte) { put16(raw, 0xa4+2, 4) }) }},
	{"attribute's hash within", "wrong hash", func(s *spoiler) { s.file("/few", func(raw []byte) { put32(raw, 0xa4+12, 4) }) }},
	{"access control list", "access control list", func(s *spoiler) {
		s.file("/few", func(raw []byte) { raw[0xa4+int(le.Uint16(raw[0xa4+2:]))]++ })
	}},
	{"group's numbers", "of them never used", func(s *spoiler) { s.group(0, func(d *groupDesc) { d.UsedDirs = 1 << 20 }) }},
	{"root no folder", "root: no folder", func(s *spoiler) {
		s.inode(rootInode, func(raw []byte) { put16(raw, 0, modeRegular) })
		s.group(0, func(d *groupDesc) { d.UsedDirs-- })
	}},
}

// spoilable is a small image with a bit of all.
func spoilable(t testing.TB) []byte {
	files := everything()
	for i := range 400 {
		files = append(files, regular("/tree/"+long(string(rune('a'+i%26))+string(rune('a'+i/26)), 40), ""))
	}
	image := make(memory, 16<<20)
	if err := write(image, testOptions(16<<20), files); err != nil {
		t.Fatal(err)
	}
	return image
}

func TestSpoiled(t *testing.T) {
	good := spoilable(t)
	check := func(image []byte) error {
		r, err := Open(readerAt(image), int64(len(image)))
		if err == nil {
			_, err = r.Check(context.Background(), nil)
		}
		return err
	}
	if err := check(good); err != nil {
		t.Fatalf("the good image: %v", err)
	}
	image := bytes.Clone(good)
	for _, c := range spoils {
		t.Run(c.name, func(t *testing.T) {
			copy(image, good)
			c.spoil(&spoiler{t, image, must(Open(readerAt(good), int64(len(good))))})
			var format *FormatError
			if err := check(image); !errors.As(err, &format) || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("checked as: %v; it should say %q", err, c.problem)
			}
		})
	}
}
