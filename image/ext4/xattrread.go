package ext4

import (
	"bytes"
	"fmt"
	"math/bits"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// sharedXattrs is a block of attributes: several inodes with the same ones may have it.
type sharedXattrs struct{ says, found uint32 }

// xattrPrefix gives the beginning of a name for its number on disk.
func xattrPrefix(index uint8) (string, bool) {
	for _, p := range xattrPrefixes {
		if p.index == index {
			return p.prefix, p.whole
		}
	}
	switch index { // those that the writer makes no use of
	case 7:
		return "system.", false
	case 8:
		return "system.richacl", true
	}
	return "", false
}

// parseXattrs reads entries from at on; offsets of values count from b's beginning.
func parseXattrs(b []byte, at int) (list []xattr, hashes []uint32, err error) {
	first, lowest := at, len(b)
	for {
		if len(b)-at < 4 {
			return nil, nil, fmt.Errorf("attributes without an end")
		}
		if le.Uint32(b[at:]) == 0 {
			break
		}
		if len(b)-at < xattrEntryHead {
			return nil, nil, fmt.Errorf("attribute at %d behind the end", at)
		}
		x := xattr{index: b[at+1]}
		prefix, whole := xattrPrefix(x.index)
		size := xattrEntryHead + (int(b[at])+3)&^3
		if size > len(b)-at {
			return nil, nil, fmt.Errorf("attribute at %d with a name of %d bytes", at, b[at])
		}
		x.name = string(b[at+xattrEntryHead:][:b[at]])
		if prefix == "" || whole != (x.name == "") || strings.IndexByte(x.name, 0) >= 0 {
			return nil, nil, fmt.Errorf("attribute of kind %d named %q", x.index, x.name)
		}
		offset, length := int(le.Uint16(b[at+2:])), uint64(le.Uint32(b[at+8:]))
		if le.Uint32(b[at+4:]) != 0 {
			return nil, nil, fmt.Errorf("attribute %s%s in an inode of its own", prefix, x.name)
		}
		if length > 0 {
			if offset < first || offset > len(b) || (length+3)&^3 > uint64(len(b)-offset) {
				return nil, nil, fmt.Errorf("attribute %s%s with %d bytes at %d of %d", prefix, x.name, length, offset, len(b))
			}
			x.value = b[offset:][:length]
			lowest = min(lowest, offset)
		}
		list = append(list, x)
		hashes = append(hashes, le.Uint32(b[at+12:]))
		at += size
	}
	if at+4 > lowest {
		return nil, nil, fmt.Errorf("names and values of attributes overlap")
	}
	return list, hashes, nil
}

// insideXattrs gives the attributes within an inode.
func (n *record) insideXattrs() ([]xattr, error) {
	if len(n.inside) < 4 || le.Uint32(n.inside) != xattrMagic {
		return nil, nil
	}
	list, hashes, err := parseXattrs(n.inside[4:], 0)
	if err != nil {
		return nil, broken(n.where(), "%v", err)
	}
	for i, x := range list {
		if hashes[i] != 0 && !x.hashed(hashes[i]) {
			return nil, broken(n.where(), "attribute %q with the wrong hash", x.name)
		}
	}
	return list, nil
}

// hashed says whether a hash is the attribute's. Before Linux 6.2 it depended on the machine whether
// bytes of a name are signed.
func (x xattr) hashed(hash uint32) bool {
	if hash == xattrHash(x.name, x.value) {
		return true
	}
	signed := uint32(0)
	for i := range len(x.name) {
		signed = bits.RotateLeft32(signed, 5) ^ uint32(int32(int8(x.name[i])))
	}
	return hash == xattrValueHash(signed, x.value)
}

// blockXattrs gives the attributes in an inode's block, and how many inodes that says it has.
func (f *Reader) blockXattrs(n *record) (list []xattr, owners uint32, err error) {
	if n.xattrBlock == 0 {
		return nil, 0, nil
	}
	if err := f.within(span{n.xattrBlock, 1}); err != nil {
		return nil, 0, broken(n.where(), "attributes in %v", err)
	}
	raw := make([]byte, f.blockSize)
	if err := f.readBlocks(raw, n.xattrBlock); err != nil {
		return nil, 0, err
	}
	if le.Uint32(raw) != xattrMagic || le.Uint32(raw[8:]) != 1 {
		return nil, 0, broken(n.where(), "block %d holds no attributes", n.xattrBlock)
	}
	if f.checksums {
		if got, want := le.Uint32(raw[xattrBlockCsum:]), xattrChecksum(f.seed, n.xattrBlock, raw); got != want {
			return nil, 0, broken(n.where(), "attributes with checksum %#x, not %#x", got, want)
		}
	}
	list, hashes, err := parseXattrs(raw, xattrHeader)
	if err != nil {
		return nil, 0, broken(n.where(), "%v", err)
	}
	for i, x := range list {
		if !x.hashed(hashes[i]) {
			return nil, 0, broken(n.where(), "attribute %q with the wrong hash", x.name)
		}
	}
	return list, le.Uint32(raw[4:]), nil
}

// readXattrs gives all attributes of an inode under their full names, in the order of names.
func (f *Reader) readXattrs(n *record) ([]source.Xattr, error) {
	inside, err := n.insideXattrs()
	if err != nil {
		return nil, err
	}
	outside, _, err := f.blockXattrs(n)
	if err != nil {
		return nil, err
	}
	var list []source.Xattr
	seen := map[string]bool{}
	for _, x := range append(inside, outside...) {
		prefix, whole := xattrPrefix(x.index)
		full := source.Xattr{Name: prefix + x.name, Value: bytes.Clone(x.value)}
		if whole && x.index <= 3 {
			if full.Value, err = aclFromDisk(x.value); err != nil {
				return nil, broken(n.where(), "%s: %v", full.Name, err)
			}
		}
		if seen[full.Name] {
			return nil, broken(n.where(), "attribute %s twice", full.Name)
		}
		seen[full.Name] = true
		list = append(list, full)
	}
	return list, nil
}

// xattrs checks an inode's attributes and gives the number of blocks that they take.
func (c *checker) xattrs(n *record) (blocks uint64, err error) {
	if _, err := c.f.readXattrs(n); err != nil {
		return 0, err
	}
	if n.xattrBlock == 0 {
		return 0, nil
	}
	known := c.shared[n.xattrBlock]
	if known == nil {
		_, owners, err := c.f.blockXattrs(n)
		if err != nil {
			return 0, err
		}
		if err := c.claims.add(span{n.xattrBlock, 1}); err != nil {
			return 0, broken(n.where(), "attributes: %v", err)
		}
		known = &sharedXattrs{says: owners}
		c.shared[n.xattrBlock] = known
	}
	known.found++
	return 1, nil
}
