package image

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/sealboot/sealboot/luks"
)

// payload takes plaintext writes at any offset, and seals them: chunks that were written to
// are kept in memory, the longest untouched one leaves first, to be hashed, encrypted and written by
// a worker. A chunk that is written to after that is read back, so that order decides speed alone.
// A piece of 64 KiB that is begun is written whole, zeros where nothing else came.
//
// WriteAt and Close are for one goroutine. Places in the image are given out by it, so
// that the image does not depend on the workers' pace.
type payload struct {
	ctx    context.Context
	disk   target
	base   int64 // where on the disk the payload begins
	size   int64
	cipher *luks.Cipher
	fill   bool // all of it is written

	open    map[int64]*list.Element // chunks in memory by number
	recent  *list.List              // of *chunk, the last touched first
	keep    int                     // how many chunks stay in memory
	room    chan struct{}           // one for each buffer that may be taken
	work    chan *chunk
	workers sync.WaitGroup
	taken   int64 // bytes handed to workers

	unmap func() // gives the buffers' memory back

	mu     sync.Mutex // guards what follows
	free   [][]byte   // buffers
	sealed map[int64]leaf
	busy   map[int64]chan struct{} // closed when a worker is done with the chunk
	err    error
}

type chunk struct {
	number  int64
	data    []byte // plaintext; chunkSize, less at the payload's end
	written uint16 // a bit for each piece
	valid   int    // where in data begins what another chunk left there
	copies  []copied
}

// copied is a part of a chunk that is still to be read, in ascending order.
type copied struct {
	src      io.ReaderAt
	at       int64 // in src
	from, to int   // in the chunk
}

// load reads what is still to be read.
func (c *chunk) load() error {
	for _, k := range c.copies {
		c.clearTo(k.from)
		if n, err := k.src.ReadAt(c.data[k.from:k.to], k.at); n < k.to-k.from {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		c.valid = max(c.valid, k.to)
	}
	c.copies = nil
	return nil
}

// clearTo makes data zeros up to there where nothing came.
func (c *chunk) clearTo(end int) {
	if c.valid < end {
		clear(c.data[c.valid:end])
		c.valid = end
	}
}

// chunksKept chunks are under way in the writer of a file system at the same time, at most:
// the one that file content goes to, and those of metadata.
const chunksKept = 4

// defaultWorkers is two for each processor, since one computes while the other waits for the disk. Each has two chunks in memory,
// and 16 are faster than a disk.
func defaultWorkers() int { return min(2*runtime.GOMAXPROCS(0), 16) }

// newPayload begins a payload of size bytes at base, and starts its workers. Close must follow.
func newPayload(ctx context.Context, disk target, base, size int64, cipher *luks.Cipher, workers int) *payload {
	p := &payload{
		ctx: ctx, disk: disk, base: base, size: size, cipher: cipher,
		open: map[int64]*list.Element{}, recent: list.New(), keep: chunksKept,
		room: make(chan struct{}, chunksKept+2*workers), work: make(chan *chunk),
		sealed: map[int64]leaf{}, busy: map[int64]chan struct{}{},
	}
	p.free, p.unmap = buffers(cap(p.room))
	for range p.free {
		p.room <- struct{}{}
	}
	for range workers {
		p.workers.Go(func() {
			for c := range p.work {
				p.finish(c, p.seal(c))
			}
		})
	}
	return p
}

// WriteAt takes plaintext. An error of a worker may show only in a later call, at the latest in Close.
func (p *payload) WriteAt(data []byte, off int64) (int, error) {
	if off < 0 || off > p.size || int64(len(data)) > p.size-off {
		return 0, fmt.Errorf("write %d bytes at %d of a payload of %d", len(data), off, p.size)
	}
	done := 0
	for done < len(data) {
		at := off + int64(done)
		c, err := p.chunk(at / chunkSize)
		if err != nil {
			return done, err
		}
		if err := c.load(); err != nil {
			return done, err
		}
		from := int(at % chunkSize)
		c.clearTo(from)
		n := copy(c.data[from:], data[done:])
		c.valid = max(c.valid, from+n)
		c.written |= piecesOf(from, from+n)
		done += n
		if from+n == len(c.data) { // nothing is likely to follow
			if err := p.evict(p.open[c.number]); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// CopyAt takes n bytes of plaintext from src, at the same place there. A worker reads them, at any time up to Close.
func (p *payload) CopyAt(src io.ReaderAt, off, n int64) error {
	if off < 0 || n < 0 || off > p.size || n > p.size-off {
		return fmt.Errorf("write %d bytes at %d of a payload of %d", n, off, p.size)
	}
	for end := off + n; off < end; {
		c, err := p.chunk(off / chunkSize)
		if err != nil {
			return err
		}
		from := int(off % chunkSize)
		to := int(min(chunkSize, int64(from)+end-off))
		if last := len(c.copies) - 1; last >= 0 && c.copies[last].to > from {
			if err := c.load(); err != nil {
				return err
			}
		}
		c.copies = append(c.copies, copied{src, off, from, to})
		c.written |= piecesOf(from, to)
		off += int64(to - from)
		if to == len(c.data) { // nothing is likely to follow
			if err := p.evict(p.open[c.number]); err != nil {
				return err
			}
		}
	}
	return nil
}

// chunk gives a chunk in memory, and makes room for it.
func (p *payload) chunk(number int64) (*chunk, error) {
	if e := p.open[number]; e != nil {
		p.recent.MoveToFront(e)
		return e.Value.(*chunk), nil
	}
	if err := p.failed(); err != nil {
		return nil, err
	}
	if p.recent.Len() >= p.keep {
		if err := p.evict(p.recent.Back()); err != nil {
			return nil, err
		}
	}
	c := &chunk{number: number, data: p.buffer()[:min(chunkSize, p.size-number*chunkSize)]}
	if err := p.reopen(c); err != nil {
		return nil, err
	}
	p.open[number] = p.recent.PushFront(c)
	return c, nil
}

// buffer waits for a free buffer. The one used last is the likeliest to be in the processor's cache.
func (p *payload) buffer() []byte {
	<-p.room
	p.mu.Lock()
	defer p.mu.Unlock()
	last := len(p.free) - 1
	data := p.free[last]
	p.free = p.free[:last]
	return data[:chunkSize]
}

func (p *payload) failed() error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// evict hands a chunk to the workers.
func (p *payload) evict(e *list.Element) error {
	c := p.recent.Remove(e).(*chunk)
	delete(p.open, c.number)
	at := p.base + c.number*chunkSize
	err := eachRun(c.written, len(c.data), func(from, to int) error {
		p.taken += int64(to - from)
		return p.disk.Reserve(at+int64(from), int64(to-from))
	})
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.busy[c.number] = make(chan struct{})
	p.mu.Unlock()
	p.work <- c
	return nil
}

// reopen brings back what was sealed before, if the chunk was.
func (p *payload) reopen(c *chunk) error {
	p.mu.Lock()
	busy := p.busy[c.number]
	p.mu.Unlock()
	if busy != nil {
		<-busy
	}
	p.mu.Lock()
	before, err := p.sealed[c.number], p.err
	delete(p.sealed, c.number)
	p.mu.Unlock()
	if err != nil {
		return err
	}
	if c.written = before.written; p.fill && c.written == 0 {
		c.written = piecesOf(0, len(c.data))
		return nil
	}
	if c.written == 0 {
		return nil
	}
	c.clearTo(len(c.data))
	return eachRun(c.written, len(c.data), func(from, to int) error {
		if _, err := p.disk.ReadAt(c.data[from:to], p.base+c.number*chunkSize+int64(from)); err != nil {
			return fmt.Errorf("read back: %w", err)
		}
		return p.cipher.Decrypt(c.data[from:to], c.data[from:to], c.number*chunkSize+int64(from))
	})
}

// seal reads what is still to be read, hashes, encrypts in place, and writes.
func (p *payload) seal(c *chunk) error {
	if err := c.load(); err != nil {
		return err
	}
	c.clearTo(len(c.data))
	sealed := newLeaf(c.data, c.written)
	err := eachRun(c.written, len(c.data), func(from, to int) error {
		off, run := c.number*chunkSize+int64(from), c.data[from:to]
		if err := p.cipher.Encrypt(run, run, off); err != nil {
			return err
		}
		_, err := p.disk.WriteAt(run, p.base+off)
		return err
	})
	if err != nil {
		return fmt.Errorf("write encrypted block: %w", err)
	}
	p.mu.Lock()
	p.sealed[c.number] = sealed
	p.mu.Unlock()
	return nil
}

func (p *payload) finish(c *chunk, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	close(p.busy[c.number])
	delete(p.busy, c.number)
	p.free = append(p.free, c.data)
	p.room <- struct{}{} // never blocks: it has room for all
}

// fillUp begins each chunk that was not written to.
func (p *payload) fillUp() error {
	for number := int64(0); number*chunkSize < p.size; number++ {
		p.mu.Lock()
		_, sealed := p.sealed[number]
		begun := sealed || p.busy[number] != nil
		p.mu.Unlock()
		if begun {
			continue
		}
		if _, err := p.chunk(number); err != nil {
			return err
		}
	}
	return nil
}

// Close seals what is left, unless the work failed before, and ends the workers. It gives the
// content digest and the bytes that were written.
func (p *payload) Close(failed error) (Digest, int64, error) {
	if failed == nil && p.fill {
		failed = p.fillUp()
	}
	for failed == nil && p.recent.Len() > 0 {
		if failed = p.failed(); failed == nil {
			failed = p.evict(p.recent.Back())
		}
	}
	close(p.work)
	p.workers.Wait()
	p.unmap()
	if failed == nil {
		failed = p.failed()
	}
	if failed != nil {
		return Digest{}, 0, failed
	}
	written := int64(0)
	for number, one := range p.sealed {
		eachRun(one.written, int(min(chunkSize, p.size-number*chunkSize)), func(from, to int) error {
			written += int64(to - from)
			return nil
		})
	}
	return digestOf(p.size, p.sealed), written, nil
}
