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
	maxUnpacked = 16 << 20 // bytes that a packed section may claim to hold; the largest builds of edk2 hold 15.4 MiB
	maxDict     = 64 << 20 // that a header may ask for
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
	// The library takes no larger dictionary than what is claimed to come out, whatever the header says.
	r, err := lzma.ReaderConfig{DictCap: maxDict}.NewReader(in)
	if err != nil {
		return nil, fmt.Errorf("unpack LZMA: %w", err)
	}
	// Taken at once: a buffer that grows would for a moment be there twice.
	out := make([]byte, size)
	n, err := io.ReadFull(r, out)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	if err == nil {
		var more [1]byte
		m, moreErr := r.Read(more[:])
		if n += m; moreErr != io.EOF {
			err = moreErr
		}
	}
	if err == nil && uint64(n) != size {
		err = fmt.Errorf("%d bytes came out, %d were claimed", n, size)
	}
	if err == nil && in.Len() > 0 {
		err = fmt.Errorf("%d bytes behind the end", in.Len())
	}
	if err != nil {
		return nil, fmt.Errorf("unpack LZMA: %w", err)
	}
	return out, nil
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
