package luks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
)

// chunkSize is how much one goroutine works on at a time.
const chunkSize = 1 << 20

// Stream encrypts or decrypts a run of sectors from a reader to a writer.
type Stream struct {
	Cipher  *Cipher
	Offset  int64 // of the first byte, from the start of the data segment
	Workers int   // 0: one for each processor, 16 at most
}

// Encrypt copies src to dst until src ends, encrypting in parallel; dst is written in order. It
// gives the bytes written. A source that ends inside a sector is refused with ErrPartialSector,
// after what came before. Memory in use: two chunks of 1 MiB for each worker.
func (s Stream) Encrypt(ctx context.Context, dst io.Writer, src io.Reader) (int64, error) {
	return s.run(ctx, dst, src, s.Cipher.Encrypt)
}

// Decrypt is the inverse of Encrypt.
func (s Stream) Decrypt(ctx context.Context, dst io.Writer, src io.Reader) (int64, error) {
	return s.run(ctx, dst, src, s.Cipher.Decrypt)
}

// chunk is a piece of the stream. done is closed when it was worked on.
type chunk struct {
	data   []byte
	offset int64
	err    error
	done   chan struct{}
}

func (s Stream) run(ctx context.Context, dst io.Writer, src io.Reader, work func(dst, src []byte, offset int64) error) (int64, error) {
	workers := s.Workers
	if workers <= 0 {
		workers = min(runtime.GOMAXPROCS(0), 16)
	}
	ctx, stop := context.WithCancel(ctx)
	todo := make(chan *chunk)               // to the workers
	inOrder := make(chan *chunk, 2*workers) // to the writer, in the order of the stream
	free := make(chan []byte, cap(inOrder)) // bounds the memory in use
	for range cap(free) {
		free <- make([]byte, chunkSize)
	}

	var running sync.WaitGroup
	defer running.Wait()
	defer stop() // before waiting
	for range workers {
		running.Go(func() {
			for c := range todo {
				if c.err == nil {
					c.err = work(c.data, c.data, c.offset)
				}
				close(c.done)
			}
		})
	}
	running.Go(func() {
		defer close(inOrder)
		defer close(todo)
		s.read(ctx, src, free, inOrder, todo)
	})
	var written int64
	for c := range inOrder {
		select {
		case <-c.done:
		case <-ctx.Done():
			return written, ctx.Err()
		}
		if c.err != nil {
			return written, c.err
		}
		n, err := dst.Write(c.data)
		written += int64(n)
		if err != nil {
			return written, fmt.Errorf("write: %w", err)
		}
		free <- c.data[:chunkSize]
	}
	return written, ctx.Err()
}

// read cuts the source into chunks, which go to the writer's queue and then to the workers.
func (s Stream) read(ctx context.Context, src io.Reader, free <-chan []byte, queues ...chan<- *chunk) {
	for offset, last := s.Offset, false; !last; {
		c := &chunk{offset: offset, done: make(chan struct{})}
		select {
		case c.data = <-free:
		case <-ctx.Done():
			return
		}
		n, err := io.ReadFull(src, c.data)
		if err != nil {
			last = true
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				c.err = fmt.Errorf("read: %w", err)
			}
		}
		c.data = c.data[:n]
		offset += int64(n)
		for _, queue := range queues {
			select {
			case queue <- c:
			case <-ctx.Done():
				return
			}
		}
	}
}
