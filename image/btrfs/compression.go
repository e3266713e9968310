package btrfs

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
)

// packings are the kinds of compression (BTRFS_COMPRESS_*).
var packings = []string{"none", "zlib", "lzo", "zstd"}

// unpack decompresses an extent to its size. What it has less is zeros: the last extent of a file ends with the file.
func (f *Reader) unpack(packing uint8, b []byte, size int) ([]byte, error) {
	out := make([]byte, size)
	var from io.Reader
	switch packings[packing] {
	case "zlib":
		z, err := zlib.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("decompress zlib: %w", err)
		}
		from = z
	case "lzo":
		return out, unpackLZO(b, out, int(f.super.sectorSize))
	case "zstd":
		// The kernel's windows are as large as an extent at most (ZSTD_BTRFS_MAX_WINDOWLOG is 17).
		z, err := zstd.NewReader(bytes.NewReader(b), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(packedMost), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, fmt.Errorf("decompress zstd: %w", err)
		}
		defer z.Close()
		from = z
	default:
		return nil, fmt.Errorf("compression %d", packing)
	}
	// Behind a zstd frame that is shorter than the extent the decoder takes the padding for another.
	n, err := io.ReadFull(from, out)
	if ended := err == nil || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, zstd.ErrMagicMismatch); !ended || n == 0 && size > 0 {
		return nil, fmt.Errorf("decompress %s: %w", packings[packing], err)
	}
	return out, nil
}

// unpackLZO takes the total length, and pieces of a length and LZO1X data that decompress to a sector each. No length
// lies across the end of a sector: what is left there is padding (fs/btrfs/lzo.c).
func unpackLZO(b, out []byte, sector int) error {
	if len(b) < 4 {
		return errors.New("lzo without a length")
	}
	total := int64(le.Uint32(b))
	if total < 8 || total > int64(len(b)) {
		return fmt.Errorf("lzo of %d bytes in %d", total, len(b))
	}
	b = b[:total]
	for at := 4; at < len(b) && len(out) > 0; {
		if left := sector - at%sector; left < 4 {
			if at += left; at >= len(b) {
				break
			}
		}
		if len(b)-at < 4 {
			return errors.New("lzo that ends in a length")
		}
		length := int64(le.Uint32(b[at:]))
		if at += 4; length > int64(len(b)-at) {
			return fmt.Errorf("a piece of lzo of %d bytes, %d left", length, len(b)-at)
		}
		n, err := unpackLZO1X(b[at:at+int(length)], out[:min(sector, len(out))])
		if err != nil {
			return err
		}
		out = out[n:]
		if n < sector {
			return nil
		}
		at += int(length)
	}
	return nil
}
