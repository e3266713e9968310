package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/internal/progress"
	"github.com/sealboot/sealboot/luks"
)

// Rekeying says how Reencrypt makes the new disk.
type Rekeying struct {
	Passphrase    []byte   // opens the old disk
	NewPassphrase []byte   // opens the new one; it may be the same
	KDF           luks.KDF // of its key slot; zero: luks.MinimalPBKDF2, which GRUB 2.12 opens
	Workers       int      // 0: two for each processor, 16 at most
}

// Reencrypted is what Reencrypt made. The disk's UUID is the old one, since the firmware asks for it; pin and volume key
// are new.
type Reencrypted struct {
	Result
	OldHeaderPin luks.Pin
	LeftOut      []int // key slots of the old disk for other passphrases, which could not be carried over
}

// Reencrypt writes a disk anew, to a QCOW2 image in out, which must be an empty file: the same partitions, the same
// plaintext, another volume key and LUKS header. What has no place in the old image, or is zeros there, has none in the
// new one. It neither syncs nor closes out, and after an error its content is of no use.
//
// The content digest is that of the old disk as it is now. A wrong passphrase is luks.ErrNoKey.
func Reencrypt(ctx context.Context, file io.ReaderAt, size int64, r Rekeying, out *os.File, random io.Reader, report progress.Func) (*Reencrypted, error) {
	if info, err := out.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() || info.Size() != 0 {
		return nil, fmt.Errorf("%s is not an empty file", out.Name())
	}
	d, err := Open(ctx, file, size)
	if err != nil {
		return nil, err
	}
	slot, from, err := d.unlock(r.Passphrase)
	if err != nil {
		return nil, err
	}
	if r.KDF == (luks.KDF{}) {
		r.KDF = luks.MinimalPBKDF2
	}
	segment := d.Header.Segment()
	spec := luks.Spec{UUID: d.Header.UUID(), Label: d.Header.Label(), SectorSize: segment.SectorSize, DataOffset: segment.Offset, KDF: r.KDF}
	header, key, err := luks.Format(spec, r.NewPassphrase, random)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	if got, want := segment.DataSize(d.Root.Size), header.Segment().DataSize(d.Root.Size); got != want {
		return nil, fmt.Errorf("%w: its encrypted data has %d bytes and does not reach the partition's end, which would make %d", ErrNotBuilt, got, want)
	}
	to, err := luks.NewCipher(key, header.Segment().SectorSize, header.Segment().IVTweak)
	if err != nil {
		return nil, err
	}
	direct := openUncached(out)
	defer direct.end()
	disk, err := qcow2.NewWriter(direct, d.image.Size())
	if err != nil {
		return nil, err
	}
	if err := d.copyAround(ctx, disk, header); err != nil {
		return nil, err
	}
	base, payload := d.payload()
	c := &recrypt{ctx: ctx, from: d.image, disk: disk, base: base, size: payload, old: from, new: to, leaves: map[int64]leaf{}}
	if err := c.run(r.Workers, report); err != nil {
		return nil, err
	}
	if err := disk.Close(); err != nil {
		return nil, err
	}
	info, err := out.Stat()
	if err != nil {
		return nil, err
	}
	made := &Reencrypted{OldHeaderPin: d.Header.Pin(), Result: Result{
		DiskUUID: header.UUID(), HeaderPin: header.Pin(), ContentDigest: digestOf(payload, c.leaves), DiskSize: d.image.Size(),
		PayloadSize: payload, Written: c.written, FileSize: info.Size(), PartitionID: d.Root.ID,
	}}
	for _, s := range d.Header.Slots() {
		if s.ID != slot {
			made.LeftOut = append(made.LeftOut, s.ID)
		}
	}
	return made, nil
}

// copyAround writes the new header and copies all that lies outside the root partition: partition tables, other
// partitions.
func (d *Disk) copyAround(ctx context.Context, disk *qcow2.Writer, header *luks.Header) error {
	encoded, err := header.Encode()
	if err != nil {
		return err
	}
	if _, err := disk.WriteAt(encoded, d.Root.Offset); err != nil {
		return fmt.Errorf("write disk: %w", err)
	}
	buf := make([]byte, chunkSize)
	end := d.Root.Offset + d.Root.Size
	return d.image.Allocated(func(off, n int64) error {
		for _, part := range [][2]int64{{off, min(off+n, d.Root.Offset)}, {max(off, end), off + n}} {
			for at := part[0]; at < part[1]; {
				piece := buf[:min(pieceSize-at%pieceSize, part[1]-at)]
				if err := readDisk(d.image, piece, at); err != nil {
					return err
				}
				if !allZero(piece) {
					if _, err := disk.WriteAt(piece, at); err != nil {
						return fmt.Errorf("write disk: %w", err)
					}
				}
				at += int64(len(piece))
			}
		}
		return ctx.Err()
	})
}

// readDisk reads all of b.
func readDisk(disk io.ReaderAt, b []byte, at int64) error {
	n, err := disk.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("read disk at %d: %w", at, err)
}

// recrypt brings a payload from one volume key to another. One goroutine reads, sees which pieces are written and gives
// them their places, in order; workers decrypt, hash, encrypt and write.
type recrypt struct {
	ctx        context.Context
	from       container
	disk       *qcow2.Writer
	base, size int64
	old, new   *luks.Cipher

	mu      sync.Mutex
	leaves  map[int64]leaf
	written int64
}

func (c *recrypt) run(workers int, report progress.Func) error {
	if workers <= 0 {
		workers = defaultWorkers()
	}
	chunks, err := chunksIn(c.from, &plain{disk: c.from, base: c.base, size: c.size})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancelCause(c.ctx)
	defer stop(nil)
	free, work := make(chan []byte, 2*workers), make(chan *chunk)
	list, unmap := buffers(cap(free))
	defer unmap()
	for _, buf := range list {
		free <- buf
	}
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for k := range work {
				if err := c.seal(k); err != nil {
					stop(err)
				}
				free <- k.data[:chunkSize]
			}
		})
	}
	for i, number := range chunks {
		if ctx.Err() != nil {
			break
		}
		k, err := c.read(number, <-free)
		if err != nil {
			stop(err)
			break
		}
		work <- k
		if report != nil {
			report(int64(i+1)*chunkSize, int64(len(chunks))*chunkSize)
		}
	}
	close(work)
	wait.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// read reads a chunk of ciphertext and gives what is written of it its place.
func (c *recrypt) read(number int64, buf []byte) (*chunk, error) {
	k := &chunk{number: number, data: buf[:min(chunkSize, c.size-number*chunkSize)]}
	at := c.base + number*chunkSize
	if err := readDisk(c.from, k.data, at); err != nil {
		return nil, err
	}
	for from := 0; from < len(k.data); from += pieceSize {
		if !allZero(k.data[from:min(from+pieceSize, len(k.data))]) {
			k.written |= 1 << (from / pieceSize)
		}
	}
	err := eachRun(k.written, len(k.data), func(from, to int) error {
		c.written += int64(to - from)
		return c.disk.Reserve(at+int64(from), int64(to-from))
	})
	return k, err
}

// seal brings a chunk from the old key to the new one.
func (c *recrypt) seal(k *chunk) error {
	if k.written == 0 {
		return nil
	}
	err := eachRun(k.written, len(k.data), func(from, to int) error {
		return c.old.Decrypt(k.data[from:to], k.data[from:to], k.number*chunkSize+int64(from))
	})
	if err != nil {
		return err
	}
	one := newLeaf(k.data, k.written)
	err = eachRun(k.written, len(k.data), func(from, to int) error {
		off, run := k.number*chunkSize+int64(from), k.data[from:to]
		if err := c.new.Encrypt(run, run, off); err != nil {
			return err
		}
		_, err := c.disk.WriteAt(run, c.base+off)
		return err
	})
	if err != nil {
		return fmt.Errorf("write encrypted block: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.leaves[k.number] = one
	return nil
}
