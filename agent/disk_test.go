package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/luks"
)

const (
	testOffset = 1 << 20 // of the data segment
	testData   = 1 << 20
	testUUID   = "0f1e2d3c-4b5a-4978-8695-a4b3c2d1e0f0"
)

// memoryDisk is a disk whose host can do with it what it likes.
type memoryDisk struct {
	mu      sync.Mutex
	content []byte
	size    int64
	reads   map[int64]int                        // of each block of 4096 bytes
	answer  func(off int64, times int, p []byte) // may change what a reading gives
	closed  bool
}

func (d *memoryDisk) Size() int64    { return d.size }
func (d *memoryDisk) Number() string { return "254:1" }
func (d *memoryDisk) Close() error   { d.closed = true; return nil }

func (d *memoryDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if off >= int64(len(d.content)) {
		return 0, io.EOF
	}
	n := copy(p, d.content[off:])
	for block := off / snapshotBlock; block*snapshotBlock < off+int64(n); block++ {
		d.reads[block]++
	}
	if d.answer != nil {
		d.answer(off, d.reads[off/snapshotBlock], p[:n])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// writableDisk is a disk that its owner changes.
type writableDisk struct{ *memoryDisk }

func (d *writableDisk) WriteAt(p []byte, off int64) (int, error) {
	return copy(d.content[off:], p), nil
}
func (d *writableDisk) Sync() error { return nil }

// machine is a set of disks that can grow.
type machine map[string]*memoryDisk

func (m machine) List() ([]string, error) {
	var names []string
	for _, name := range []string{"sda", "vda", "vda1", "vdb"} {
		if m[name] != nil {
			names = append(names, name)
		}
	}
	return names, nil
}

func (m machine) Open(name string) (Disk, error) {
	if m[name] == nil {
		return nil, os.ErrNotExist
	}
	return m[name], nil
}

// mapper notes what it was asked to map.
type mapper struct {
	tables []Table
	key    []byte
	fails  error
}

func (m *mapper) Map(t Table, key []byte) error {
	m.tables, m.key = append(m.tables, t), bytes.Clone(key)
	return m.fails
}

// good is a disk, what opens it, and its volume key.
type good struct {
	disk      *memoryDisk
	keys      Keys
	volumeKey []byte
}

var passphrase = []byte("256 bits of a key server's choosing")

func newGood(t *testing.T) *good {
	t.Helper()
	h, key, err := luks.Format(luks.Spec{UUID: testUUID, DataOffset: testOffset, KDF: luks.MinimalPBKDF2}, passphrase, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	content := append(encoded, make([]byte, testOffset+testData-len(encoded))...)
	return &good{
		disk:      &memoryDisk{content: content, size: int64(len(content)), reads: map[int64]int{}},
		keys:      Keys{Passphrase: bytes.Clone(passphrase), Pin: h.Pin()},
		volumeKey: key.Bytes(),
	}
}

// open finds the disk among others and opens it.
func (g *good) open(t *testing.T) (*mapper, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	m := machine{"sda": emptyDisk(), "vda": emptyDisk(), "vda1": g.disk}
	mapped := &mapper{}
	found, err := Find(ctx, m, testUUID)
	if err != nil {
		if found != nil {
			t.Error("a disk in spite of the error")
		}
		return mapped, err
	}
	boot, err := Unlock(found, &g.keys, mapped)
	if boot != (len(mapped.tables) == 2) {
		t.Errorf("%d devices, but a boot volume: %v", len(mapped.tables), boot)
	}
	return mapped, err
}

func emptyDisk() *memoryDisk {
	return &memoryDisk{content: make([]byte, 1<<16), size: 1 << 16, reads: map[int64]int{}}
}

// rewrite changes the JSON of both copies of a LUKS2 header and makes their checksums right again
// (LUKS2 On-Disk Format Specification, 2.1: 64 bytes at 448).
func rewrite(t *testing.T, content []byte, edit func(json []byte) []byte) {
	t.Helper()
	size := int(binary.BigEndian.Uint64(content[8:]))
	for _, copied := range [][]byte{content[:size], content[size : 2*size]} {
		json := bytes.TrimRight(copied[4096:], "\x00")
		changed := edit(bytes.Clone(json))
		if bytes.Equal(changed, json) || len(changed) >= size-4096 {
			t.Fatal("the header's JSON was not changed as wanted")
		}
		clear(copied[4096:])
		copy(copied[4096:], changed)
		clear(copied[448 : 448+64])
		sum := sha256.Sum256(copied)
		copy(copied[448:], sum[:])
	}
}

var errMap = errors.New("device-mapper is out of order")
