package ext4

import (
	"fmt"
	"io"
)

const outputBuffer = 1 << 20

// output gathers blocks that adjoin into large writes. Blocks from limit on are dropped: they
// are only counted.
type output struct {
	w     io.WriterAt
	limit uint64
	at    uint64 // block where the gathered bytes go
	buf   []byte
}

func newOutput(w io.WriterAt, limit uint64) *output {
	return &output{w: w, limit: limit, buf: make([]byte, 0, outputBuffer)}
}

// write takes whole blocks.
func (o *output) write(block uint64, data []byte) error {
	if block >= o.limit {
		return nil
	}
	if o.at+uint64(len(o.buf)/blockSize) != block || len(o.buf)+len(data) > cap(o.buf) {
		if err := o.flush(); err != nil {
			return err
		}
		o.at = block
	}
	if len(data) >= cap(o.buf) {
		return o.put(block, data)
	}
	o.buf = append(o.buf, data...)
	return nil
}

func (o *output) flush() error {
	if len(o.buf) == 0 {
		return nil
	}
	err := o.put(o.at, o.buf)
	o.at += uint64(len(o.buf) / blockSize)
	o.buf = o.buf[:0]
	return err
}

func (o *output) put(block uint64, data []byte) error {
	if _, err := o.w.WriteAt(data, int64(block)*blockSize); err != nil {
		return fmt.Errorf("write ext4 block %d: %w", block, err)
	}
	return nil
}
