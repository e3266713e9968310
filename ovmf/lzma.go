package ovmf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"

	"github.com/sealboot/sealboot/internal/guid"
)

// lzmaGUID marks a section packed with LZMA (edk2 MdeModulePkg/Include/Guid/LzmaDecompress.h).
var lzmaGUID = guid.MustParse("ee4e5898-3914-4259-9d6e-dc7bd79403cf")

const (
	maxUnpacked = 64 << 20 // bytes that a packed section may claim to hold; 16 MiB are usual
	lzmaHeader  = 13       // properties, u32 dictionary, u64 size
	lzmaDict    = 16 << 20 // what edk2's own tool writes
)

// unpackLZMA unpacks a section. What it claims to hold is checked first, and bounds what is read.
func unpackLZMA(packed []byte) ([]byte, error) {
	if len(packed) < lzmaHeader {
		return nil, fmt.Errorf("unpack LZMA: %d bytes are too few", len(packed))
	}
	size := binary.LittleEndian.Uint64(packed[5:])
	if size > maxUnpacked {
		return nil, fmt.Errorf("unpack LZMA: claims to hold %d bytes, more than %d", size, maxUnpacked)
	}
	in := bytes.NewReader(packed)
	r, err := lzma.ReaderConfig{DictCap: maxUnpacked}.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpack LZMA: %w", err)
	}
	// The buffer grows with what really comes out: a short input cannot make it large by its claim alone.
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(r, int64(size)+1))
	if err == nil && uint64(n) != size {
		err = fmt.Errorf("%d bytes came out, %d were claimed", n, size)
	}
	if err == nil && in.Len() > 0 {
		err = fmt.Errorf("%d bytes behind the end", in.Len())
	}
	if err != nil {
		return nil, fmt.Errorf("unpack LZMA: %w", err)
	}
	return out.Bytes(), nil
}

// packLZMA packs a section as edk2's decompressor wants it: size in the header, no end mark.
// The hash-table matcher takes well under a second for a firmware volume; the library's
// binary tree takes minutes on the erased space.
func packLZMA(data []byte) ([]byte, error) {
	if len(data) == 0 {
		return nil, errors.New("pack LZMA: nothing to pack")
	}
	var out bytes.Buffer
	w, err := lzma.WriterConfig{
		Properties:   &lzma.Properties{LC: 3, LP: 0, PB: 2}, // 0x5d
		DictCap:      lzmaDict,
		Matcher:      lzma.HashTable4,
		SizeInHeader: true,
		Size:         int64(len(data)),
	}.NewWriter(&out)
	if err == nil {
		if _, err = w.Write(data); err == nil {
			err = w.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("pack LZMA: %w", err)
	}
	return out.Bytes(), nil
}
