package ovmf

import (
	"encoding/binary"
	"fmt"
	"unicode/utf16"

	"github.com/sealboot/sealboot/internal/guid"
)

// Types of sections (PI specification, volume 3, EFI_SECTION_TYPE).
const (
	sectionCompression = 0x01
	sectionGUIDDefined = 0x02
	sectionPE32        = 0x10
	sectionUI          = 0x15
	sectionVolumeImage = 0x17
)

const (
	sectionHeader    = 4 // u24 size, u8 type
	sectionExtended  = 8 // u24 ffffff, u8 type, u32 size
	maxPlainSection  = 1<<24 - 1
	maxPerStream     = 1024       // sections in one stream: files have fewer than ten
	guidedHeader     = 16 + 2 + 2 // GUID, u16 offset of the data, u16 attributes
	guidedProcessing = 1          // EFI_GUIDED_SECTION_PROCESSING_REQUIRED
)

// section is a part of a file; it may hold sections or a volume of its own.
type section struct {
	kind byte
	data []byte
}

func (s section) headerSize() int {
	if sectionHeader+len(s.data) >= maxPlainSection {
		return sectionExtended
	}
	return sectionHeader
}

// parseSections takes apart a stream of sections, each 4-byte aligned and the last ending where b ends.
func parseSections(b []byte, where string) ([]section, error) {
	fail := func(offset int, format string, args ...any) ([]section, error) {
		return nil, &FormatError{where, offset, fmt.Sprintf(format, args...)}
	}
	var sections []section
	for at := 0; at < len(b); {
		if len(sections) == maxPerStream {
			return fail(at, "more than %d sections", maxPerStream)
		}
		if len(b)-at < sectionHeader {
			return fail(at, "%d bytes left for a section's header", len(b)-at)
		}
		header, size := sectionHeader, int64(uint24(b[at:]))
		if size == maxPlainSection {
			if header = sectionExtended; len(b)-at < header {
				return fail(at, "%d bytes left for a section's extended header", len(b)-at)
			}
			size = int64(binary.LittleEndian.Uint32(b[at+4:]))
		}
		if size < int64(header) || size > int64(len(b)-at) {
			return fail(at, "section of %d bytes, %d left", size, len(b)-at)
		}
		s := section{kind: b[at+3], data: b[at+header : at+int(size)]}
		if s.headerSize() != header {
			return fail(at, "extended header for a section of %d bytes", size)
		}
		sections = append(sections, s)
		at += int(size)
		for ; at < len(b) && at%4 != 0; at++ {
			if b[at] != 0 {
				return fail(at, "data between two sections")
			}
			if at+1 == len(b) {
				return fail(at, "padding behind the last section")
			}
		}
	}
	return sections, nil
}

// encodeSections puts a stream together again.
func encodeSections(sections []section) []byte {
	size := 0
	for _, s := range sections {
		size = align(size, 4) + s.headerSize() + len(s.data)
	}
	b := make([]byte, 0, size)
	for _, s := range sections {
		b = append(b, make([]byte, align(len(b), 4)-len(b))...)
		var h [sectionExtended]byte
		n := s.headerSize()
		putUint24(h[:], n+len(s.data))
		if n == sectionExtended {
			putUint24(h[:], maxPlainSection)
			binary.LittleEndian.PutUint32(h[4:], uint32(n+len(s.data)))
		}
		h[3] = s.kind
		b = append(append(b, h[:n]...), s.data...)
	}
	return b
}

// guided takes apart the data of a GUID-defined section.
func (s section) guided() (id guid.GUID, attributes uint16, head, data []byte, ok bool) {
	if s.kind != sectionGUIDDefined || len(s.data) < guidedHeader {
		return guid.GUID{}, 0, nil, nil, false
	}
	offset := int(binary.LittleEndian.Uint16(s.data[16:])) - s.headerSize() // counted from the section's start
	if offset < guidedHeader || offset > len(s.data) {
		return guid.GUID{}, 0, nil, nil, false
	}
	return guid.GUID(s.data[:16]), binary.LittleEndian.Uint16(s.data[18:]), s.data[:offset], s.data[offset:], true
}

// uiName gives the name of a file for people, "" if it has none that can be read.
func (f *File) uiName() string {
	sections, err := parseSections(f.Body, "")
	if err != nil || f.Type == filePad || f.Type == fileRaw {
		return ""
	}
	for _, s := range sections {
		if s.kind != sectionUI || len(s.data)%2 != 0 {
			continue
		}
		var text []uint16
		for i := 0; i < len(s.data); i += 2 {
			c := binary.LittleEndian.Uint16(s.data[i:])
			if c == 0 {
				break
			}
			text = append(text, c)
		}
		return string(utf16.Decode(text))
	}
	return ""
}
