package ext4

import (
	"fmt"
	"io"
)

// output takes whole blocks. Those from limit on are dropped: they are only counted.
type output struct {
	w     io.WriterAt
	limit uint64
}

func (o *output) write(block uint64, data []byte) error {
	if block >= o.limit {
		return nil
	}
	if _, err := o.w.WriteAt(data, int64(block)*blockSize); err != nil {
		return fmt.Errorf("write ext4 block %d: %w", block, err)
	}
	return nil
}
