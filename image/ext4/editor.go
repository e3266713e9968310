package ext4

import (
	"errors"
	"io"
	"maps"
	"slices"
	"time"
)

// Editor changes a file system that exists: the source is never written, what changes is kept beside it.
// Its Reader reads the file system as changed; what that gives for Allocated and Check is of the result too.
//
// Each of Put and Remove is done wholly or not at all: after an error the file system is as it
// was before. Only what has to change does: a new file's blocks, the folder's, bitmaps, descriptors and superblock. The
// journal is left empty, and copies of the superblock and descriptors as they are, as the kernel does.
//
// Damage is found where it is met: checksums, bitmaps that disagree with their counters, blocks
// freed twice. Check finds the rest, before or after.
//
// It is for one goroutine. What it holds in memory grows with the number of changed blocks.
type Editor struct {
	*Reader
	over    *overlay
	now     timestamp
	fixed   []span               // metadata with a fixed place, sorted: never to be given out or freed
	before  superblock           // as before the step
	undo    map[uint32]groupDesc // by group: descriptors that the step has changed, as before
	repairs Repairs
}

// EditOptions says how changes are made.
type EditOptions struct {
	Time    time.Time // of the changes; also of entries that have none
	Scratch Scratch   // keeps changed blocks; nil is up to 64 MiB of memory
}

// Repairs are what NewEditor did to make the file system usable.
type Repairs struct {
	Transactions int      // replayed from the journal
	Orphans      int      // files deleted or shortened, which programs still had open
	TurnedOff    []string // features, as dumpe2fs names them
}

// NewEditor opens a file system of so many bytes. Its journal is replayed if it was not unmounted cleanly, and what was
// deleted while open is freed. Features that GRUB cannot read or that this package does not know are
// turned off where no file makes use of them; the others are refused with an *UnsupportedError.
func NewEditor(r io.ReaderAt, size int64, o EditOptions) (*Editor, error) {
	if o.Time.IsZero() {
		return nil, errors.New("edit ext4: no time is given")
	}
	f, err := openAs(r, size, lenient)
	if err != nil {
		return nil, err
	}
	e := &Editor{Reader: f, over: newOverlay(r, o.Scratch, f.blockSize), now: newTimestamp(o.Time), undo: map[uint32]groupDesc{}}
	f.r = e.over
	if err := e.replayJournal(); err != nil {
		return nil, err
	}
	e.over.keep()
	if e.Reader, err = openAs(e.over, size, removable); err != nil {
		return nil, err
	}
	if f.blockSize != e.blockSize {
		return nil, broken("superblock", "block size %d, and %d in the journal", f.blockSize, e.blockSize)
	}
	if err := e.refuse(); err != nil {
		return nil, err
	}
	e.findFixed()
	e.before = *e.super
	for _, repair := range []func() error{e.orphans, e.turnOff} {
		if err := e.step(repair); err != nil {
			return nil, err
		}
	}
	if err := e.clean(); err != nil {
		return nil, err
	}
	return e, nil
}

// refuse names features of which the editor could not keep the accounts.
func (e *Editor) refuse() error {
	s := e.super
	if bad := s.FeatureROCompat & (roQuota | roReadonly); bad != 0 {
		return &UnsupportedError{names(bad, roNames)}
	}
	return nil
}

// Repairs says what NewEditor did.
func (e *Editor) Repairs() Repairs { return e.repairs }

// ReadAt reads the file system as changed.
func (e *Editor) ReadAt(b []byte, at int64) (int, error) { return e.over.ReadAt(b, at) }

// Size is the file system's, in bytes: what is behind it belongs to no file.
func (e *Editor) Size() int64 { return int64(e.blocks) * int64(e.blockSize) }

// Changed calls use for the ranges of bytes that are not the source's any more, in ascending order. What was
// written and freed again is among them.
func (e *Editor) Changed(use func(offset, length int64) error) error {
	size := int64(e.blockSize)
	for _, s := range e.over.changed() {
		if err := use(int64(s.start)*size, int64(s.count)*size); err != nil {
			return err
		}
	}
	return nil
}

// step does something wholly or not at all.
func (e *Editor) step(do func() error) error {
	err := do()
	if err == nil {
		err = e.flush()
	}
	if err != nil {
		e.over.drop()
		for group, d := range e.undo {
			e.descs[group] = d
		}
		*e.super = e.before
	} else {
		e.over.keep()
		e.before = *e.super
	}
	clear(e.undo)
	return err
}

// group gives a descriptor that may be changed.
func (e *Editor) group(group uint32) *groupDesc {
	if _, ok := e.undo[group]; !ok {
		e.undo[group] = e.descs[group]
	}
	return &e.descs[group]
}

// flush writes the descriptors that changed, and the superblock.
func (e *Editor) flush() error {
	if len(e.undo) == 0 && len(e.over.undo) == 0 && *e.super == e.before {
		return nil
	}
	perBlock := uint32(e.blockSize / e.descSize)
	raw := make([]byte, e.blockSize)
	for _, group := range slices.Sorted(maps.Keys(e.undo)) {
		block := e.descBlock(group / perBlock)
		if err := e.readBlocks(raw, block); err != nil {
			return err
		}
		desc := raw[int(group%perBlock)*e.descSize:][:e.descSize]
		e.descs[group].encode(desc)
		switch {
		case e.checksums:
			le.PutUint16(desc[groupDescCsum:], groupChecksum(e.seed, group, desc))
		case e.uninit():
			le.PutUint16(desc[groupDescCsum:], e.groupCRC16(group, desc))
		}
		if err := e.over.write(block, raw); err != nil {
			return err
		}
	}
	s := e.super
	s.Wtime = e.now.low()
	if s.RevLevel > 0 {
		s.TimesHi[0] = uint8(e.now.seconds >> 32)
	}
	return e.patch(superOffset, s.encode())
}

// patch changes bytes within a block.
func (e *Editor) patch(at int64, data []byte) error {
	block, into := uint64(at)/uint64(e.blockSize), int(at)%e.blockSize
	raw := make([]byte, e.blockSize)
	if err := e.readBlocks(raw, block); err != nil {
		return err
	}
	copy(raw[into:], data)
	return e.over.write(block, raw)
}
