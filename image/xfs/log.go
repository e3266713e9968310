package xfs

import (
	"fmt"

	"github.com/sealboot/sealboot/image/fsys"
)

// The log (xfs_log_format.h): records, each a header and data, in basic blocks of 512 bytes. Each basic block begins with the
// number of the cycle in which it was written; a header with a magic number, and the cycle behind it.
const (
	basicBlock    = 512
	logMagic      = 0xfeedbabe // XLOG_HEADER_MAGIC_NUM
	logHeaderSize = 32 << 10   // XLOG_HEADER_CYCLE_SIZE: data for which one header block has room
	logUnmount    = 0x20       // XLOG_UNMOUNT_TRANS
	logMost       = 2 << 30    // XFS_MAX_LOG_BYTES
)

// readLog says whether the log is clean. Up to the head all basic blocks are of one cycle, and behind it of the one before, or 0 where
// tools have cleared the log; the last record ends at the head, and is the one that unmounting writes (xlog_check_unmount_rec in
// fs/xfs/xfs_log_recover.c). A log that looks otherwise in any way is taken for one with something to replay.
func (f *Reader) readLog() error {
	s := f.super
	if s.incompat&incompatNeedsRepair != 0 {
		return fmt.Errorf("%w (it is marked as needing repair: run xfs_repair)", fsys.ErrUnclean)
	}
	start, err := f.place(s.logStart, uint64(s.logBlocks))
	if err != nil {
		return err
	}
	blocks := int64(s.logBlocks) << s.blockLog / basicBlock
	head, last := blocks, int64(-1) // last: the header that is nearest before the head
	wrapped := int64(-1)            // the last header of the cycle before
	var cycle uint32
	buf := make([]byte, 1<<20)
	for at := int64(0); at < blocks; at += int64(len(buf)) / basicBlock {
		buf = buf[:min(int64(len(buf)), (blocks-at)*basicBlock)]
		if _, err := fsys.ReadAt(f.r, buf, start+at*basicBlock); err != nil {
			return fmt.Errorf("read xfs log: %w", err)
		}
		for i := range int64(len(buf)) / basicBlock {
			b := buf[i*basicBlock:]
			now, isHeader := be.Uint32(b), false
			if now == logMagic {
				now, isHeader = be.Uint32(b[4:]), true
			}
			if at+i == 0 {
				cycle = now
			}
			switch {
			case now == cycle && head == blocks:
				if isHeader {
					last = at + i
				}
			case now == cycle-1, now == 0:
				head = min(head, at+i)
				if isHeader {
					wrapped = at + i
				}
			default:
				return fmt.Errorf("%w (its log is torn at block %d)", fsys.ErrUnclean, at+i)
			}
		}
	}
	if last < 0 {
		last = wrapped
	}
	if last < 0 {
		return fmt.Errorf("%w (its log is empty)", fsys.ErrUnclean)
	}
	return f.lastRecord(start, last, blocks, head)
}

// lastRecord checks that a record ends at the head and is of unmounting. The log is a ring.
func (f *Reader) lastRecord(start, at, blocks, head int64) error {
	b := make([]byte, basicBlock)
	if _, err := fsys.ReadAt(f.r, b, start+at*basicBlock); err != nil {
		return fmt.Errorf("read xfs log: %w", err)
	}
	headers := int64(1)
	if size := int64(be.Uint32(b[320:])); be.Uint32(b[8:])&2 != 0 && size > logHeaderSize {
		headers = (size + logHeaderSize - 1) / logHeaderSize
	}
	length, operations := int64(be.Uint32(b[12:])), be.Uint32(b[40:])
	end := at + headers + (length+basicBlock-1)/basicBlock
	if operations != 1 || end%blocks != head%blocks || end > at+blocks {
		return fmt.Errorf("%w (its log ends with changes)", fsys.ErrUnclean)
	}
	if _, err := fsys.ReadAt(f.r, b, start+(at+headers)%blocks*basicBlock); err != nil {
		return fmt.Errorf("read xfs log: %w", err)
	}
	if b[9]&logUnmount == 0 { // oh_flags
		return fmt.Errorf("%w (its log ends with changes)", fsys.ErrUnclean)
	}
	return nil
}
