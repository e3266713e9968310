package image

import (
	"context"
	"errors"
	"io"
	"sync"

	"github.com/sealboot/sealboot/internal/progress"
)

// blockSize is how finely a scan tells what was written: a block of a file system of ours.
const blockSize = 4096

// scan is what a payload holds: the leaves of its digest, and which blocks were written.
type scan struct {
	leaves  map[int64]leaf     // by chunk
	blocks  map[int64]blockMap // by chunk
	written int64              // bytes of written pieces
}

// blockMap has a bit for each block of a chunk.
type blockMap [chunkSize / blockSize / 64]uint64

// scanPayload reads and decrypts all of a payload that has a place in the image.
func scanPayload(ctx context.Context, image container, p *plain, report progress.Func) (*scan, error) {
	chunks, err := chunksIn(image, p)
	if err != nil {
		return nil, err
	}
	s := &scan{leaves: map[int64]leaf{}, blocks: map[int64]blockMap{}}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan int64)
	var wait sync.WaitGroup
	var mu sync.Mutex
	for range defaultWorkers() {
		wait.Go(func() {
			buf := make([]byte, chunkSize)
			for number := range work {
				one, blocks, n, err := scanChunk(p, number, buf)
				if err != nil {
					cancel(err)
					continue
				}
				mu.Lock()
				if one.written != 0 {
					s.leaves[number], s.blocks[number] = one, blocks
				}
				s.written += n
				mu.Unlock()
			}
		})
	}
	for i, number := range chunks {
		if ctx.Err() != nil {
			break
		}
		work <- number
		if report != nil {
			report(int64(i+1)*chunkSize, int64(len(chunks))*chunkSize)
		}
	}
	close(work)
	wait.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return s, nil
}

// chunksIn lists the chunks of the payload of which something has a place in the image.
func chunksIn(image container, p *plain) ([]int64, error) {
	var chunks []int64
	err := image.Allocated(func(off, n int64) error {
		from, to := max(off-p.base, 0), min(off+n-p.base, p.size)
		for number := from / chunkSize; number*chunkSize < to; number++ {
			if len(chunks) == 0 || chunks[len(chunks)-1] < number {
				chunks = append(chunks, number)
			}
		}
		return nil
	})
	return chunks, err
}

// scanChunk reads one chunk: its leaf, the bits of its written blocks, the bytes of its written pieces.
func scanChunk(p *plain, number int64, buf []byte) (one leaf, blocks blockMap, written int64, err error) {
	buf = buf[:min(chunkSize, p.size-number*chunkSize)]
	if n, err := p.disk.ReadAt(buf, p.base+number*chunkSize); n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return leaf{}, blocks, 0, err
	}
	var mask uint16
	for at := 0; at < len(buf); at += blockSize {
		if !allZero(buf[at:min(at+blockSize, len(buf))]) {
			mask |= 1 << (at / pieceSize)
			blocks[at/blockSize/64] |= 1 << (at / blockSize % 64)
		}
	}
	err = eachRun(mask, len(buf), func(from, to int) error {
		written += int64(to - from)
		return p.cipher.Decrypt(buf[from:to], buf[from:to], number*chunkSize+int64(from))
	})
	if err != nil {
		return leaf{}, blocks, 0, err
	}
	return newLeaf(buf, mask), blocks, written, nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// missing gives the first byte in [off, off+n) whose block was not written, or -1.
func (s *scan) missing(off, n int64) int64 {
	const perChunk = chunkSize / blockSize
	number, blocks := int64(-1), blockMap{}
	for block := off / blockSize; block*blockSize < off+n; block++ {
		if block/perChunk != number {
			number = block / perChunk
			blocks = s.blocks[number] // none: all zeros
		}
		if i := block % perChunk; blocks[i/64]&(1<<(i%64)) == 0 {
			return max(off, block*blockSize)
		}
	}
	return -1
}
