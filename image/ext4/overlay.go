package ext4

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Scratch keeps changed blocks: a temporary file, say. It must give back what was written to it.
type Scratch interface {
	io.ReaderAt
	io.WriterAt
}

// ErrScratch says that the changes do not fit in the memory that an Editor without a Scratch may use.
var ErrScratch = errors.New("the changes take too much memory: a scratch file is needed")

// scratchMost is what is kept in memory where there is no scratch file.
const scratchMost = 64 << 20

// scratchMemory is a Scratch in memory.
type scratchMemory struct{ pieces [][]byte }

const scratchPiece = 1 << 20

func (m *scratchMemory) each(length int, at int64, visit func(piece []byte, done int)) {
	for done := 0; done < length; {
		piece := m.pieces[at/scratchPiece][at%scratchPiece:]
		piece = piece[:min(len(piece), length-done)]
		visit(piece, done)
		done, at = done+len(piece), at+int64(len(piece))
	}
}

// ReadAt is only asked for what was written.
func (m *scratchMemory) ReadAt(b []byte, at int64) (int, error) {
	m.each(len(b), at, func(piece []byte, done int) { copy(b[done:], piece) })
	return len(b), nil
}

func (m *scratchMemory) WriteAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > scratchMost {
		return 0, ErrScratch
	}
	for at+int64(len(b)) > int64(len(m.pieces))*scratchPiece {
		m.pieces = append(m.pieces, make([]byte, scratchPiece))
	}
	m.each(len(b), at, func(piece []byte, done int) { copy(piece, b[done:]) })
	return len(b), nil
}

// overlay reads as a source with some blocks changed. Writes belong to a step, which is kept or
// undone as a whole: within it no slot is written over that a block had before.
type overlay struct {
	source  io.ReaderAt
	scratch Scratch
	size    int64            // of a block
	slots   map[uint64]int64 // by block: its place in scratch, in blocks
	undo    map[uint64]int64 // blocks that this step has written: the slot before, or noSlot
	spare   []int64          // slots that nothing uses
	next    int64
}

const noSlot = -1

func newOverlay(source io.ReaderAt, scratch Scratch, blockSize int) *overlay {
	if scratch == nil {
		scratch = &scratchMemory{}
	}
	return &overlay{
		source: source, scratch: scratch, size: int64(blockSize),
		slots: map[uint64]int64{}, undo: map[uint64]int64{},
	}
}

// run is how many blocks from one on, and at most so many, are read from one place: from the source
// (slot noSlot) or from adjoining slots.
func (o *overlay) run(block, most uint64) (slot int64, count uint64) {
	slot = o.slot(block)
	for count = 1; count < most; count++ {
		want := slot + int64(count)
		if slot == noSlot {
			want = noSlot
		}
		if o.slot(block+count) != want {
			break
		}
	}
	return slot, count
}

func (o *overlay) slot(block uint64) int64 {
	if slot, ok := o.slots[block]; ok {
		return slot
	}
	return noSlot
}

// ReadAt reads changed blocks as changed, and all others from the source.
func (o *overlay) ReadAt(b []byte, at int64) (int, error) {
	if at < 0 {
		return 0, fmt.Errorf("read at %d", at)
	}
	if len(o.slots) == 0 {
		return o.source.ReadAt(b, at)
	}
	done := 0
	for done < len(b) {
		block, into := uint64(at/o.size), at%o.size
		blocks := (into + int64(len(b)-done) + o.size - 1) / o.size
		slot, count := o.run(block, uint64(blocks))
		part := b[done:][:min(int64(len(b)-done), int64(count)*o.size-into)]
		from, place := o.source, at
		if slot != noSlot {
			from, place = o.scratch, slot*o.size+into
		}
		n, err := from.ReadAt(part, place)
		done += n
		if n < len(part) {
			return done, err
		}
		at += int64(n)
	}
	return done, nil
}

// write changes whole blocks.
func (o *overlay) write(block uint64, data []byte) error {
	for len(data) > 0 {
		first, count := o.claim(block), int64(1)
		for count*o.size < int64(len(data)) {
			slot := o.claim(block + uint64(count))
			if slot != first+count {
				break // claimed already: the next turn gets the same slot
			}
			count++
		}
		if _, err := o.scratch.WriteAt(data[:count*o.size], first*o.size); err != nil {
			return fmt.Errorf("keep changed block %d: %w", block, err)
		}
		block, data = block+uint64(count), data[count*o.size:]
	}
	return nil
}

// claim gives a slot that this step may write.
func (o *overlay) claim(block uint64) int64 {
	old := o.slot(block)
	if _, ours := o.undo[block]; ours {
		return old
	}
	o.undo[block] = old
	slot := o.next
	if last := len(o.spare) - 1; last >= 0 {
		slot, o.spare = o.spare[last], o.spare[:last]
	} else {
		o.next++
	}
	o.slots[block] = slot
	return slot
}

// keep ends a step.
func (o *overlay) keep() {
	for _, slot := range o.undo {
		if slot != noSlot {
			o.spare = append(o.spare, slot)
		}
	}
	o.undo = map[uint64]int64{}
}

// drop undoes a step.
func (o *overlay) drop() {
	for block, old := range o.undo {
		o.spare = append(o.spare, o.slots[block])
		if old == noSlot {
			delete(o.slots, block)
		} else {
			o.slots[block] = old
		}
	}
	o.undo = map[uint64]int64{}
}

// changed gives the runs of blocks that are not the source's, in ascending order.
func (o *overlay) changed() (runs []span) {
	for _, block := range slices.Sorted(maps.Keys(o.slots)) {
		if last := len(runs) - 1; last >= 0 && runs[last].start+runs[last].count == block {
			runs[last].count++
			continue
		}
		runs = append(runs, span{block, 1})
	}
	return runs
}
