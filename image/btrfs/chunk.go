package btrfs

import (
	"cmp"
	"fmt"
	"slices"
	"sort"

	"github.com/sealboot/sealboot/image/fsys"
)

// Profiles (BTRFS_BLOCK_GROUP_*): only single, which is none of the bits, and DUP are read.
const (
	profileMask = 0x7f8
	profileDUP  = 1 << 5
	chunkHead   = 48 // of btrfs_chunk, before the stripes
	stripeSize  = 32
	chunksMost  = 1 << 16
)

var profiles = []fsys.Feature{
	{Bit: 3, Name: "profile RAID0"}, {Bit: 4, Name: "profile RAID1"}, {Bit: 6, Name: "profile RAID10"}, {Bit: 7, Name: "profile RAID5"},
	{Bit: 8, Name: "profile RAID6"}, {Bit: 9, Name: "profile RAID1C3"}, {Bit: 10, Name: "profile RAID1C4"},
}

// chunk says where a range of addresses lies on the device, once or twice.
type chunk struct {
	address, length uint64
	places          []uint64
}

// decodeChunk reads btrfs_chunk, and gives how long it is.
func (f *Reader) decodeChunk(address uint64, b []byte) (chunk, int, error) {
	where := fmt.Sprintf("chunk %d", address)
	s := f.super
	if len(b) < chunkHead {
		return chunk{}, 0, broken(where, "%d bytes", len(b))
	}
	c := chunk{address: address, length: le.Uint64(b)}
	kind, stripes := le.Uint64(b[24:]), int(le.Uint16(b[44:]))
	if other := kind & profileMask &^ profileDUP; other != 0 {
		return chunk{}, 0, unsupported(fsys.Names(other, profiles, "profile")...)
	}
	want := 1
	if kind&profileDUP != 0 {
		want = 2
	}
	size := chunkHead + stripes*stripeSize
	if stripes != want || len(b) < size {
		return chunk{}, 0, broken(where, "%d stripes, not %d", stripes, want)
	}
	sector := uint64(s.sectorSize)
	if c.length == 0 || c.length%sector != 0 || address%sector != 0 || c.length > s.size || address > 1<<63-c.length {
		return chunk{}, 0, broken(where, "%d bytes", c.length)
	}
	for i := range stripes {
		stripe := b[chunkHead+i*stripeSize:]
		device, place := le.Uint64(stripe), le.Uint64(stripe[8:])
		if device != s.device || place%sector != 0 || place > s.size-c.length {
			return chunk{}, 0, broken(where, "%d bytes at %d of device %d", c.length, place, device)
		}
		c.places = append(c.places, place)
	}
	return c, size, nil
}

// readChunks takes first the chunks in the superblock, which those of the chunk tree are in.
func (f *Reader) readChunks() error {
	for b := f.super.chunks; len(b) > 0; {
		k, ok := decodeKey(b)
		if !ok || k.object != chunkObject || k.kind != itemChunk {
			return broken("superblock", "%d bytes behind its chunks", len(b))
		}
		c, size, err := f.decodeChunk(k.offset, b[keySize:])
		if err != nil {
			return err
		}
		f.chunks = append(f.chunks, c)
		b = b[keySize+size:]
	}
	if err := f.sortChunks(); err != nil {
		return err
	}
	var all []chunk
	err := f.walk(f.super.chunkRoot, key{object: chunkObject, kind: itemChunk}, func(k key, b []byte) (bool, error) {
		if k.object != chunkObject || k.kind != itemChunk {
			return false, nil
		}
		c, _, err := f.decodeChunk(k.offset, b)
		if err != nil {
			return false, err
		}
		if all = append(all, c); len(all) > chunksMost {
			return false, fmt.Errorf("btrfs: its chunks are %w", fsys.ErrTooLarge)
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("chunk tree: %w", err)
	}
	f.chunks = all
	clear(f.blocks)
	return f.sortChunks()
}

// sortChunks also looks whether addresses or places overlap.
func (f *Reader) sortChunks() error {
	slices.SortFunc(f.chunks, func(a, b chunk) int { return cmp.Compare(a.address, b.address) })
	for i := 1; i < len(f.chunks); i++ {
		if last := f.chunks[i-1]; last.address+last.length > f.chunks[i].address {
			return broken(fmt.Sprintf("chunk %d", f.chunks[i].address), "overlaps with another")
		}
	}
	list := f.stripes()
	for i := 1; i < len(list); i++ {
		if last := list[i-1]; last.place+last.length > list[i].place {
			return broken(fmt.Sprintf("chunk %d", list[i].address), "lies where another does, at %d", list[i].place)
		}
	}
	return nil
}

// stripe is one place of a chunk.
type stripe struct{ place, address, length uint64 }

// stripes gives the places of all chunks in ascending order.
func (f *Reader) stripes() []stripe {
	var list []stripe
	for _, c := range f.chunks {
		for _, place := range c.places {
			list = append(list, stripe{place, c.address, c.length})
		}
	}
	slices.SortFunc(list, func(a, b stripe) int { return cmp.Compare(a.place, b.place) })
	return list
}

// places gives where bytes that lie in one chunk are on the device.
func (f *Reader) places(address, length uint64) ([]uint64, error) {
	i := sort.Search(len(f.chunks), func(i int) bool { return f.chunks[i].address > address }) - 1
	if i < 0 || length > f.chunks[i].length || address-f.chunks[i].address > f.chunks[i].length-length {
		return nil, broken(fmt.Sprintf("address %d", address), "%d bytes from there lie in no chunk", length)
	}
	var list []uint64
	for _, place := range f.chunks[i].places {
		list = append(list, place+address-f.chunks[i].address)
	}
	return list, nil
}
