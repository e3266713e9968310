package agent

import (
	"fmt"
	"io"
)

// snapshot reads each block of a disk at most once and answers from memory ever after. The
// host may give other bytes at each reading of a disk; through a snapshot, what was
// checked is what is used, whoever reads it however often.
type snapshot struct {
	disk   io.ReaderAt
	size   int64
	blocks map[int64][]byte
}

const (
	snapshotBlock = 4096
	snapshotLimit = 16384 // blocks kept: 64 MiB, four times the largest LUKS2 header with its key slots
)

func newSnapshot(disk io.ReaderAt, size int64) *snapshot {
	return &snapshot{disk: disk, size: size, blocks: map[int64][]byte{}}
}

func (s *snapshot) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read at %d", off)
	}
	n := 0
	for n < len(p) {
		at := off + int64(n)
		if at >= s.size {
			return n, io.EOF
		}
		block, err := s.block(at / snapshotBlock)
		if err != nil {
			return n, err
		}
		n += copy(p[n:], block[at%snapshotBlock:])
	}
	return n, nil
}

func (s *snapshot) block(i int64) ([]byte, error) {
	if b, ok := s.blocks[i]; ok {
		return b, nil
	}
	if len(s.blocks) >= snapshotLimit {
		return nil, fmt.Errorf("LUKS header of more than %d bytes", snapshotLimit*snapshotBlock)
	}
	begin := i * snapshotBlock
	b := make([]byte, min(snapshotBlock, s.size-begin))
	if n, err := s.disk.ReadAt(b, begin); n < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	s.blocks[i] = b
	return b, nil
}
