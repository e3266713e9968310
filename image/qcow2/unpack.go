package qcow2

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
)

// unpacker decompresses clusters and keeps the last few, since they are read in small pieces.
type unpacker struct {
	cluster int64
	zstd    bool

	mu   sync.Mutex
	kept [4]unpacked
	next int
}

type unpacked struct {
	host int64 // 0: nothing is kept here
	data []byte
}

// zstdWindow bounds what a cluster may ask for: QEMU's level makes windows of 2 MiB.
const zstdWindow = 8 << 20

// readPacked reads a part of a compressed cluster.
func (r *Reader) readPacked(p []byte, at int64, entry l2Entry) error {
	u := &r.unpack
	u.mu.Lock()
	for _, k := range u.kept {
		if k.host == entry.host {
			copy(p, k.data[at:])
			u.mu.Unlock()
			return nil
		}
	}
	u.mu.Unlock()
	packed := make([]byte, min(int64(entry.packed), r.fileSize-entry.host))
	if err := r.read(packed, entry.host); err != nil {
		return err
	}
	data, err := u.unpack(packed)
	if err != nil {
		return broken(entry.host, "a compressed cluster: %s", err)
	}
	copy(p, data[at:])
	u.mu.Lock()
	defer u.mu.Unlock()
	u.kept[u.next] = unpacked{entry.host, data}
	u.next = (u.next + 1) % len(u.kept)
	return nil
}

// unpack decompresses one cluster, no more and no less: what stands behind it belongs to the next
// (specification, "Compressed Clusters Descriptor").
func (u *unpacker) unpack(packed []byte) ([]byte, error) {
	var in io.Reader
	if u.zstd {
		d, err := zstd.NewReader(bytes.NewReader(packed), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(zstdWindow), zstd.WithDecoderMaxMemory(zstdWindow))
		if err != nil {
			return nil, err
		}
		defer d.Close()
		in = d
	} else {
		d := flate.NewReader(bytes.NewReader(packed))
		defer d.Close()
		in = d
	}
	data := make([]byte, u.cluster)
	if n, err := io.ReadFull(in, data); err != nil {
		return nil, fmt.Errorf("%d of %d bytes: %w", n, u.cluster, err)
	}
	return data, nil
}
