package ext4

import (
	"fmt"
	"maps"
	"slices"
)

// form is how a folder's blocks are laid out.
func (e *Editor) form(n *record) folderForm {
	return folderForm{size: e.blockSize, checksums: e.checksums, seed: n.seed}
}

// hashing is how new trees of the file system hash names.
func (e *Editor) hashing() nameHashing {
	h := nameHashing{version: e.super.DefHashVersion, unsigned: e.super.Flags&flagUnsignedHash != 0, seed: e.hashSeed(), levels: 1}
	if h.version > hashTEA {
		h.version = hashHalfMD4
	}
	if e.super.FeatureIncompat&incompatLargeDir != 0 {
		h.levels = 2
	}
	return h
}

func (e *Editor) indexes() bool { return e.super.FeatureCompat&compatDirIndex != 0 }

// entryKind is the kind that entries have for a file.
func (e *Editor) entryKind(kind uint8) uint8 {
	if e.super.FeatureIncompat&incompatFileType == 0 {
		return 0
	}
	return kind
}

// insert puts a name that is not there into a folder. A tree's leaf that is full is parted. Where that takes
// more than another entry in the node above, all of the folder is laid out again, with room in its leaves; a list
// that is full becomes a tree, or grows where the file system has none.
func (e *Editor) insert(folder *draft, entry folderEntry) error {
	if len(entry.name) > nameMax {
		return fmt.Errorf("%w: a name of %d bytes", ErrTree, len(entry.name))
	}
	blocks, err := e.folderBlocks(folder.record)
	if err != nil {
		return err
	}
	folder.setTime(placeModify, e.now)
	folder.setTime(placeChange, e.now)
	if e.indexed(folder.record) {
		return e.insertHashed(folder, blocks, entry)
	}
	folder.setFlags(0, inodeIndexed)
	form := e.form(folder.record)
	raw := make([]byte, e.blockSize)
	for place := range blocks {
		if err := e.leaf(folder.record, blocks, place, raw); err != nil {
			return err
		}
		if e.putInto(form, raw, entry) {
			if err := e.over.write(blocks[place], raw); err != nil {
				return err
			}
			return e.save(folder)
		}
	}
	if e.indexes() {
		return e.rebuild(folder, blocks, entry)
	}
	if err := e.grow(folder, form.leaf([]folderEntry{entry})); err != nil {
		return err
	}
	return e.save(folder)
}

// leaf reads a leaf block and checks it.
func (e *Editor) leaf(n *record, blocks []uint64, place int, raw []byte) error {
	if err := e.readBlocks(raw, blocks[place]); err != nil {
		return err
	}
	return e.parseFolder(n, place, raw, leafKind, func(folderEntry) error { return nil })
}

// putInto puts an entry into a leaf block that has been checked, if it has the room.
func (e *Editor) putInto(form folderForm, raw []byte, entry folderEntry) bool {
	need := entrySize(entry.name)
	for at, end := 0, form.room(); at < end; {
		size := e.recordLength(le.Uint16(raw[at+4:]))
		used := 0
		if le.Uint32(raw[at:]) != 0 {
			used = entryHead + (int(raw[at+6])+3)&^3
		}
		if size-used >= need {
			if used > 0 {
				le.PutUint16(raw[at+4:], uint16(used))
			}
			clear(raw[at+used : at+size])
			putEntry(raw[at+used:], entry, size-used)
			form.seal(raw)
			return true
		}
		at += size
	}
	return false
}

// grow appends a block to a folder.
func (e *Editor) grow(folder *draft, raw []byte) error {
	content, nodes, err := e.blocksOf(folder.record)
	if err != nil {
		return err
	}
	for _, s := range nodes {
		if err := e.freeBlocks(s); err != nil {
			return err
		}
	}
	block, err := e.takeBlock(e.near(folder.number))
	if err != nil {
		return err
	}
	if err := e.over.write(block, raw); err != nil {
		return err
	}
	place := folder.size / uint64(e.blockSize)
	folder.setSize(folder.size + uint64(e.blockSize))
	return e.setBlocks(folder, addExtent(content, uint32(place), span{block, 1}))
}

func (e *Editor) insertHashed(folder *draft, blocks []uint64, entry folderEntry) error {
	tree, way, _, _, err := e.hashWay(folder.record, blocks, entry.name)
	if err != nil {
		return err
	}
	parent := way[len(way)-1]
	place := parent.leaf()
	raw := make([]byte, e.blockSize)
	if err := e.leaf(folder.record, blocks, place, raw); err != nil {
		return err
	}
	form := e.form(folder.record)
	if e.putInto(form, raw, entry) {
		if err := e.over.write(blocks[place], raw); err != nil {
			return err
		}
		return e.save(folder)
	}
	if len(parent.entries) == form.indexMost(parent.at) {
		return e.rebuild(folder, blocks, entry)
	}
	var entries []folderEntry
	err = e.parseFolder(folder.record, place, raw, leafKind, func(x folderEntry) error {
		entries = append(entries, x)
		return nil
	})
	if err != nil {
		return err
	}
	entries = append(entries, entry)
	tree.hashing.sort(entries)
	half := fitting(entries, form.room()/2)
	lower, upper := entries[:half], entries[half:]
	if half == 0 || fitting(upper, form.room()) < len(upper) {
		return e.rebuild(folder, blocks, entry)
	}
	bound := upper[0].hash
	if bound == lower[half-1].hash {
		bound |= 1 // goes on from the block before
	}
	added := indexed{bound, uint32(len(blocks))}
	form.putIndex(parent.raw, parent.at, slices.Insert(parent.entries, parent.i+1, added))
	if err := e.over.write(blocks[parent.place], parent.raw); err != nil {
		return err
	}
	if err := e.over.write(blocks[place], form.leaf(lower)); err != nil {
		return err
	}
	if err := e.grow(folder, form.leaf(upper)); err != nil {
		return err
	}
	return e.save(folder)
}

// rebuild lays a folder out as a tree, with one more entry. Its blocks are used again.
func (e *Editor) rebuild(folder *draft, blocks []uint64, entry folderEntry) error {
	entries, err := e.entries(folder.record)
	if err != nil {
		return err
	}
	first := make([]byte, e.blockSize)
	if err := e.readBlocks(first, blocks[0]); err != nil {
		return err
	}
	kind := e.entryKind(kindFolder)
	dots := []folderEntry{
		{name: ".", number: folder.number, kind: kind},
		{name: "..", number: le.Uint32(first[rootDotDot:]), kind: kind},
	}
	form := e.form(folder.record)
	laid, err := form.tree(dots, append(entries, entry), e.hashing(), form.room()*3/4)
	if err != nil {
		return err
	}
	content, nodes, err := e.blocksOf(folder.record)
	if err != nil {
		return err
	}
	for _, s := range nodes {
		if err := e.freeBlocks(s); err != nil {
			return err
		}
	}
	for len(blocks) > len(laid) {
		last := len(blocks) - 1
		if err := e.freeBlocks(span{blocks[last], 1}); err != nil {
			return err
		}
		blocks = blocks[:last]
	}
	content = content[:0]
	if more := len(laid) - len(blocks); more > 0 {
		runs, err := e.takeBlocks(uint64(more), e.near(folder.number))
		if err != nil {
			return err
		}
		for _, run := range runs {
			for i := range run.count {
				blocks = append(blocks, run.start+i)
			}
		}
	}
	for i, block := range blocks {
		content = addExtent(content, uint32(i), span{block, 1})
		if err := e.over.write(block, laid[i]); err != nil {
			return err
		}
	}
	folder.setSize(uint64(len(laid)) * uint64(e.blockSize))
	folder.setFlags(inodeIndexed, 0)
	if err := e.setBlocks(folder, content); err != nil {
		return err
	}
	return e.save(folder)
}

// erase takes a name out of a folder.
func (e *Editor) erase(folder *draft, name string) error {
	blocks, err := e.folderBlocks(folder.record)
	if err != nil {
		return err
	}
	places := make([]int, len(blocks))
	for place := range blocks {
		places[place] = place
	}
	if e.indexed(folder.record) {
		_, way, _, more, err := e.hashWay(folder.record, blocks, name)
		if err != nil {
			return err
		}
		if places = []int{way[len(way)-1].leaf()}; more {
			if places, err = e.leaves(folder.record, blocks); err != nil {
				return err
			}
		}
	}
	form := e.form(folder.record)
	raw := make([]byte, e.blockSize)
	for _, place := range places {
		if err := e.leaf(folder.record, blocks, place, raw); err != nil {
			return err
		}
		before := -1
		for at, end := 0, form.room(); at < end; {
			size := e.recordLength(le.Uint16(raw[at+4:]))
			if le.Uint32(raw[at:]) != 0 && string(raw[at+entryHead:][:raw[at+6]]) == name {
				clear(raw[at : at+4])
				clear(raw[at+6 : at+size])
				if before >= 0 {
					le.PutUint16(raw[before+4:], uint16(at+size-before))
				}
				form.seal(raw)
				folder.setTime(placeModify, e.now)
				folder.setTime(placeChange, e.now)
				if err := e.over.write(blocks[place], raw); err != nil {
					return err
				}
				return e.save(folder)
			}
			before, at = at, at+size
		}
	}
	return broken(folder.where(), "folder without %q, which was there", name)
}

// leaves gives the places of a tree's leaves.
func (e *Editor) leaves(n *record, blocks []uint64) ([]int, error) {
	tree, err := e.Reader.hashTree(n, blocks)
	if err != nil {
		return nil, err
	}
	return slices.Sorted(maps.Keys(tree.leaves)), nil
}
