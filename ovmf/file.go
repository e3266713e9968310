package ovmf

import (
	"fmt"

	"github.com/sealboot/sealboot/internal/guid"
)

// FileType is a firmware file's type (PI specification, volume 3, EFI_FV_FILETYPE).
type FileType uint8

const (
	fileRaw         FileType = 0x01
	fileApplication FileType = 0x09
	fileVolumeImage FileType = 0x0b
	filePad         FileType = 0xf0
)

const (
	fileHeader    = 24 // GUID, u16 checksums, u8 type, u8 attributes, u24 size, u8 state (PI volume 3, EFI_FFS_FILE_HEADER)
	maxFileSize   = 1<<24 - 1
	fileLarge     = 0x01 // FFS_ATTRIB_LARGE_FILE
	fileFixed     = 0x04 // FFS_ATTRIB_FIXED
	fileAlignment = 0x3a // FFS_ATTRIB_DATA_ALIGNMENT and FFS_ATTRIB_DATA_ALIGNMENT_2
	fileChecksum  = 0x40 // FFS_ATTRIB_CHECKSUM
	fileDataValid = 0xf8 // header constructed, header valid and data valid, as stored where erased bits are 1
	noChecksum    = 0xaa // FFS_FIXED_CHECKSUM
)

// padGUID is what edk2 names its pad files.
var padGUID = guid.GUID{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// File is a firmware file in a volume.
type File struct {
	GUID       guid.GUID
	Type       FileType
	Attributes uint8
	Body       []byte // for most types a stream of sections
}

func (f *File) size() int { return fileHeader + len(f.Body) }

// parseFile takes apart the file at the start of b, which may be longer.
func parseFile(b []byte, where string) (*File, error) {
	fail := func(offset int, format string, args ...any) (*File, error) {
		return nil, &FormatError{where, offset, fmt.Sprintf(format, args...)}
	}
	if len(b) < fileHeader {
		return fail(0, "%d bytes left for a header of %d", len(b), fileHeader)
	}
	size := uint24(b[20:])
	if b[19]&fileLarge != 0 {
		return fail(19, "large files are not supported")
	}
	if size < fileHeader || size > len(b) {
		return fail(20, "file of %d bytes, %d left", size, len(b))
	}
	if b[23] != fileDataValid {
		return fail(23, "state %#x, not %#x", b[23], fileDataValid)
	}
	f := &File{GUID: guid.GUID(b[:16]), Type: FileType(b[18]), Attributes: b[19], Body: b[fileHeader:size]}
	header, data := f.checksums()
	if b[16] != header {
		return fail(16, "header checksum %#x, not %#x", b[16], header)
	}
	if b[17] != data {
		return fail(17, "file checksum %#x, not %#x", b[17], data)
	}
	return f, nil
}

// header gives the header with both checksums and the state left zero, as the header checksum counts it.
func (f *File) header() [fileHeader]byte {
	var h [fileHeader]byte
	copy(h[:], f.GUID[:])
	h[18], h[19] = byte(f.Type), f.Attributes
	putUint24(h[20:], f.size())
	return h
}

func (f *File) checksums() (header, data byte) {
	h := f.header()
	header, data = -sum8(h[:]), noChecksum
	if f.Attributes&fileChecksum != 0 {
		data = -sum8(f.Body)
	}
	return header, data
}

// append puts the file together behind b.
func (f *File) append(b []byte) []byte {
	h := f.header()
	h[16], h[17] = f.checksums()
	h[23] = fileDataValid
	return append(append(b, h[:]...), f.Body...)
}

// pad gives a pad file of the same size, whose contents are erased.
func (f *File) pad() *File {
	return &File{GUID: padGUID, Type: filePad, Body: appendErased(nil, len(f.Body))}
}

func uint24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

func putUint24(b []byte, n int) { b[0], b[1], b[2] = byte(n), byte(n>>8), byte(n>>16) }
