package ext4

import (
	"encoding/binary"
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
)

// Of the journal's blocks (Linux, include/linux/jbd2.h and fs/jbd2/recovery.c; big-endian).
const (
	journalDescriptor = 1 // kinds of blocks
	journalCommit     = 2
	journalRevoke     = 5

	journalHead     = 12 // u32 magic, u32 kind, u32 sequence
	journalErrno    = 0x20
	commitCsum      = 16 // in a commit block
	journalCsumTail = 4  // behind descriptors and revocations

	tagEscaped  = 1 // the block began with the journal's magic number
	tagSameUUID = 2 // no UUID follows
	tagLast     = 8

	journalRevokes = 0x1 // features
	journal64Bit   = 0x2
	journalKnown   = journalRevokes | journal64Bit | journalCsumV2 | journalCsumV3
)

// journalNames are the features with which a journal is not replayed.
var journalNames = []featureName{{0x4, "journal_async_commit"}, {0x20, "fast_commit"}}

// replayJournal brings the file system to the state of the last transaction that is whole in the journal, and
// empties that. It is what a kernel does when it mounts, or e2fsck: a block that was revoked later is left out.
func (e *Editor) replayJournal() error {
	if e.super.FeatureIncompat&incompatRecover == 0 {
		return nil
	}
	if e.super.FeatureCompat&compatJournal == 0 {
		return broken("superblock", "journal to be replayed, and there is none")
	}
	n, err := e.readInode(e.super.JournalInum)
	if err != nil {
		return err
	}
	file, err := e.openJournal(n)
	if err != nil {
		return err
	}
	be := binary.BigEndian
	if be.Uint32(file.super[journalErrno:]) != 0 {
		return fmt.Errorf("%w: its journal notes an error", ErrUnclean)
	}
	if bad := file.features() &^ journalKnown; bad != 0 {
		return fmt.Errorf("%w: its journal is to be replayed, and has %v", ErrUnclean, names(bad, journalNames))
	}
	log := &journalLog{e: e, journalFile: file, sequence: be.Uint32(file.super[journalSequence:]), revoked: map[uint64]uint32{}}
	if start := be.Uint32(file.super[journalStart:]); start != 0 {
		if err := log.scan(start); err != nil {
			return err
		}
		if err := log.apply(); err != nil {
			return err
		}
	}
	e.repairs.Transactions = log.transactions
	be.PutUint32(file.super[journalStart:], 0)
	be.PutUint32(file.super[journalSequence:], log.sequence+1)
	if file.checksums() {
		be.PutUint32(file.super[journalCsum:], file.checksum())
	}
	if err := e.patch(int64(file.runs[0].start)*int64(e.blockSize), file.super); err != nil {
		return err
	}
	return e.recovered()
}

// recovered notes in the superblock, which may be another since the replay, that there is nothing to replay.
func (e *Editor) recovered() error {
	raw := make([]byte, superSize)
	if _, err := fsys.ReadAt(e.over, raw, superOffset); err != nil {
		return err
	}
	s, err := decodeSuperblock(raw)
	if err != nil {
		return err
	}
	if s.Magic != superMagic {
		return broken("superblock", "magic number %#x after the journal's replay", s.Magic)
	}
	s.FeatureIncompat &^= incompatRecover
	return e.patch(superOffset, s.encode())
}

// journalLog is what a journal holds.
type journalLog struct {
	*journalFile
	e            *Editor
	sequence     uint32            // of the next transaction
	transactions int               // that are whole
	blocks       []loggedBlock     // of whole transactions, in order
	revoked      map[uint64]uint32 // by block: the last transaction that revoked it
}

// loggedBlock is a block's content in the journal.
type loggedBlock struct {
	block    uint64
	place    uint32 // in the journal
	sequence uint32
	checksum uint32
	escaped  bool
}

func (l *journalLog) problem(place uint32, format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrUnclean, broken(fmt.Sprintf("journal block %d", place), format, args...))
}

func (l *journalLog) first() uint32 { return binary.BigEndian.Uint32(l.super[journalFirst:]) }

// next is the place behind one: the log is a ring.
func (l *journalLog) next(place uint32) uint32 {
	if place+1 >= l.total {
		return l.first()
	}
	return place + 1
}

// read reads a block of the journal.
func (l *journalLog) read(place uint32) ([]byte, error) {
	at := uint64(place)
	for _, run := range l.runs {
		if at < run.count {
			raw := make([]byte, l.e.blockSize)
			return raw, l.e.readBlocks(raw, run.start+at)
		}
		at -= run.count
	}
	return nil, l.problem(place, "behind the journal's end")
}

// scan goes through the log from its start to its end: where no block of the next transaction is.
func (l *journalLog) scan(start uint32) error {
	if first := l.first(); first == 0 || first >= l.total || start < first || start >= l.total {
		return l.problem(start, "log from %d on, of blocks %d to %d", start, first, l.total)
	}
	be := binary.BigEndian
	var blocks []loggedBlock // of the transaction that is being read
	var revoked []uint64
	place := start
	for left := int64(l.total); ; {
		raw, err := l.read(place)
		if err != nil {
			return err
		}
		if be.Uint32(raw) != journalMagic || be.Uint32(raw[8:]) != l.sequence {
			return nil
		}
		here := place
		place, left = l.next(place), left-1
		switch kind := be.Uint32(raw[4:]); kind {
		case journalDescriptor:
			tags, err := l.tags(here, raw)
			if err != nil {
				return err
			}
			for _, tag := range tags {
				tag.place, tag.sequence = place, l.sequence
				blocks = append(blocks, tag)
				place, left = l.next(place), left-1
			}
		case journalRevoke:
			more, err := l.revocations(here, raw)
			if err != nil {
				return err
			}
			revoked = append(revoked, more...)
		case journalCommit:
			if l.checksums() {
				got := be.Uint32(raw[commitCsum:])
				clear(raw[commitCsum:][:4])
				if want := crc32c(l.seed(), raw); got != want {
					return l.problem(here, "commit with checksum %#x, not %#x", got, want)
				}
			}
			for _, block := range revoked {
				l.revoked[block] = l.sequence
			}
			l.blocks = append(l.blocks, blocks...)
			blocks, revoked = nil, nil
			l.sequence++
			l.transactions++
		default:
			return nil
		}
		if left < 0 {
			return l.problem(here, "log longer than the journal")
		}
	}
}

func (l *journalLog) seed() uint32 { return crc32c(^uint32(0), l.super[journalUUID:][:16]) }

// tail checks a checksum at a block's end, and gives what is before it.
func (l *journalLog) tail(place uint32, raw []byte) ([]byte, error) {
	if !l.checksums() {
		return raw, nil
	}
	body := raw[:len(raw)-journalCsumTail]
	want := crc32c(crc32c(l.seed(), body), make([]byte, journalCsumTail))
	if got := binary.BigEndian.Uint32(raw[len(body):]); got != want {
		return nil, l.problem(place, "checksum %#x, not %#x", got, want)
	}
	return body, nil
}

// tags gives the blocks that follow a descriptor.
func (l *journalLog) tags(place uint32, raw []byte) (list []loggedBlock, err error) {
	body, err := l.tail(place, raw)
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	wide := l.features()&journal64Bit != 0
	size := 8
	switch {
	case l.features()&journalCsumV3 != 0:
		size = 16
	case wide:
		size = 12
	}
	if l.features()&(journalCsumV2|journalCsumV3) == journalCsumV2 {
		size += 2 // as jbd2 counts them: journal_tag_bytes
	}
	for at := journalHead; len(body)-at >= size; {
		tag := body[at:][:size]
		at += size
		x := loggedBlock{block: uint64(be.Uint32(tag)), checksum: uint32(be.Uint16(tag[4:]))}
		flags := uint32(be.Uint16(tag[6:]))
		if size == 16 {
			flags, x.checksum = be.Uint32(tag[4:]), be.Uint32(tag[12:])
		}
		if wide {
			x.block |= uint64(be.Uint32(tag[8:])) << 32
		}
		x.escaped = flags&tagEscaped != 0
		list = append(list, x)
		if flags&tagSameUUID == 0 {
			at += 16
		}
		if flags&tagLast != 0 {
			break
		}
	}
	return list, nil
}

// revocations gives the blocks that a transaction does not want to be replayed from before it.
func (l *journalLog) revocations(place uint32, raw []byte) (list []uint64, err error) {
	body, err := l.tail(place, raw)
	if err != nil {
		return nil, err
	}
	be := binary.BigEndian
	end := int64(be.Uint32(raw[journalHead:]))
	size := 4
	if l.features()&journal64Bit != 0 {
		size = 8
	}
	if end < journalHead+4 || end > int64(len(body)) {
		return nil, l.problem(place, "revocations of %d bytes", end)
	}
	for rest := body[journalHead+4 : end]; len(rest) >= size; rest = rest[size:] {
		if size == 8 {
			list = append(list, be.Uint64(rest))
		} else {
			list = append(list, uint64(be.Uint32(rest)))
		}
	}
	return list, nil
}

// apply writes the blocks to their places.
func (l *journalLog) apply() error {
	be := binary.BigEndian
	for _, x := range l.blocks {
		if last, ok := l.revoked[x.block]; ok && int32(last-x.sequence) >= 0 {
			continue
		}
		raw, err := l.read(x.place)
		if err != nil {
			return err
		}
		if l.checksums() {
			want := crc32c(crc32c(l.seed(), be.AppendUint32(nil, x.sequence)), raw)
			if l.features()&journalCsumV3 == 0 {
				want &= 0xffff
			}
			if x.checksum != want {
				return l.problem(x.place, "content with checksum %#x, not %#x", x.checksum, want)
			}
		}
		if x.escaped {
			be.PutUint32(raw, journalMagic)
		}
		if x.block >= l.e.blocks {
			return l.problem(x.place, "content for block %d of %d", x.block, l.e.blocks)
		}
		if err := l.e.over.write(x.block, raw); err != nil {
			return err
		}
	}
	return nil
}
