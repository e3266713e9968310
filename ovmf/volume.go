package ovmf

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/sealboot/sealboot/internal/guid"
)

// File systems of volumes (PI specification, volume 3: EFI_FIRMWARE_FILE_SYSTEM2_GUID and 3).
var (
	ffs2GUID = guid.MustParse("8c8ce578-8a3d-4f1c-9935-896185c32dd3")
	ffs3GUID = guid.MustParse("5473c07a-3dcb-4dca-bd6f-1e9689e7349a")
)

const (
	maxFiles        = 2048   // in one volume: the largest of edk2's hold some 120
	volumeHeader    = 56     // fixed part, in front of the block map (PI volume 3, EFI_FIRMWARE_VOLUME_HEADER)
	volumeExtHeader = 16 + 4 // name, size: EFI_FIRMWARE_VOLUME_EXT_HEADER
	erasePolarity   = 0x800  // EFI_FVB2_ERASE_POLARITY: an erased bit is 1
	erased          = 0xff
)

// Volume is a firmware volume taken apart.
type Volume struct {
	Offset     int       // where it was found, counted from the start of what holds it
	FileSystem guid.GUID // how its contents are laid out
	Name       guid.GUID // zero if it has none
	Files      []*File   // in order; none if the file system is not one of files
	Free       int       // erased bytes behind the last file

	head []byte // everything in front of the first file
	raw  []byte // contents, where the file system is another
}

// Size is the volume's length in bytes.
func (v *Volume) Size() int {
	size := len(v.head) + len(v.raw) + v.Free
	for _, f := range v.Files {
		size += align(f.size(), 8)
	}
	return size
}

// isVolume says whether a volume's header may stand at the start of b.
func isVolume(b []byte) bool { return len(b) >= volumeHeader && string(b[40:44]) == "_FVH" }

// parseVolume takes apart the volume at the start of b, which may be longer.
func parseVolume(b []byte, where string) (*Volume, error) {
	fail := func(offset int, format string, args ...any) (*Volume, error) {
		return nil, &FormatError{where, offset, fmt.Sprintf(format, args...)}
	}
	if !isVolume(b) {
		return fail(0, "no volume header")
	}
	length := binary.LittleEndian.Uint64(b[32:])
	if length < volumeHeader+8 || length > uint64(len(b)) || length%8 != 0 {
		return fail(32, "volume of %d bytes, %d left", length, len(b))
	}
	b = b[:length]
	head := int(binary.LittleEndian.Uint16(b[48:]))
	if head < volumeHeader+8 || head > len(b) || head%8 != 0 {
		return fail(48, "header of %d bytes in a volume of %d", head, len(b))
	}
	if sum := sum16(b[:head]); sum != 0 {
		return fail(50, "header checksum is off by %#x", sum)
	}
	if b[55] != 2 {
		return fail(55, "revision %d, not 2", b[55])
	}
	v := &Volume{FileSystem: guid.GUID(b[16:32])}
	if v.FileSystem != ffs2GUID && v.FileSystem != ffs3GUID {
		v.head, v.raw = b[:head], b[head:]
		return v, nil
	}
	if binary.LittleEndian.Uint32(b[44:])&erasePolarity == 0 {
		return fail(44, "erased bits are 0")
	}
	start := head
	if ext := int(binary.LittleEndian.Uint16(b[52:])); ext != 0 {
		if ext < head || ext > len(b)-volumeExtHeader {
			return fail(52, "extended header at %#x in a volume of %d bytes", ext, len(b))
		}
		size := binary.LittleEndian.Uint32(b[ext+16:])
		if size < volumeExtHeader || uint64(size) > uint64(len(b)-ext) {
			return fail(ext+16, "extended header of %d bytes, %d left", size, len(b)-ext)
		}
		v.Name = guid.GUID(b[ext : ext+16])
		start = align(ext+int(size), 8) // not beyond the end: that is a multiple of 8
	}
	v.head = b[:start]
	for at := start; at < len(b); {
		if isErased(b[at:min(at+fileHeader, len(b))]) {
			if !isErased(b[at:]) {
				return fail(at, "data behind the free space")
			}
			v.Free = len(b) - at
			break
		}
		if len(v.Files) == maxFiles {
			return fail(at, "more than %d files", maxFiles)
		}
		f, err := parseFile(b[at:], fmt.Sprintf("%s, file at %#x", where, at))
		if err != nil {
			return nil, err
		}
		end := align(f.size(), 8)
		if !isErased(b[at+f.size() : at+end]) {
			return fail(at+f.size(), "data between two files")
		}
		v.Files = append(v.Files, f)
		at += end
	}
	return v, nil
}

// encode puts the volume together again.
func (v *Volume) encode() []byte {
	b := make([]byte, 0, v.Size())
	b = append(b, v.head...)
	b = append(b, v.raw...)
	for _, f := range v.Files {
		b = f.append(b)
		for range align(f.size(), 8) - f.size() {
			b = append(b, erased)
		}
	}
	return appendErased(b, v.Free)
}

// align rounds n up to a multiple of to, a power of two.
func align(n, to int) int { return (n + to - 1) &^ (to - 1) }

func isErased(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c != erased })
}

func appendErased(b []byte, n int) []byte {
	at := len(b)
	b = append(b, make([]byte, n)...)
	for i := at; i < len(b); i++ {
		b[i] = erased
	}
	return b
}

func sum16(b []byte) (sum uint16) {
	for i := 0; i+1 < len(b); i += 2 {
		sum += binary.LittleEndian.Uint16(b[i:])
	}
	return sum
}

func sum8(b []byte) (sum uint8) {
	for _, c := range b {
		sum += c
	}
	return sum
}
