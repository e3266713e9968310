package ovmf

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/internal/guid"
)

// Identifiers in the table at the end of the image.
var (
	tableGUID       = guid.MustParse("96b582de-1fb2-45f7-baea-a366c55a082d") // edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm
	SecretAreaGUID  = guid.MustParse("4c2eb361-7d9b-4cc3-8081-127c90d3d294") // likewise: u32 base, u32 size
	HashesAreaGUID  = guid.MustParse("7255371f-3a3b-4b04-927b-1da6efa8d454") // likewise: u32 base, u32 size
	ResetVectorGUID = guid.MustParse("00f771de-1a7e-4fcb-890e-68c77e2fb44e") // likewise: u32 address where a second vCPU starts under SEV-ES
	MetadataGUID    = guid.MustParse("dc886566-984a-4798-a75e-5585a7bf67cc") // likewise: u32 offset back from the end of the image
)

const (
	// MaxSize bounds an image. QEMU maps at most 8 MiB unless told otherwise, and never more than
	// this (hw/i386/pc.c, pc_machine_set_max_fw_size).
	MaxSize = 16 << 20

	// PageSize is what the SEV firmware measures at a time, and what an image consists of.
	PageSize = 4096

	tableEnd    = 32      // bytes between the table and the end of the image: the reset vector
	entryHeader = 2 + 16  // u16 length, GUID; behind the entry's data
	fourGiB     = 1 << 32 // where the image ends in guest memory
)

// ErrNotOVMF says that the image has no table of OVMF's at its end.
var ErrNotOVMF = errors.New("not an OVMF image: no table at its end")

// ErrNoSecretArea says that the firmware has no place for a launch secret.
var ErrNoSecretArea = errors.New("firmware has no launch-secret area: it must be a build for AMD SEV (OVMF.amdsev.fd)")

// FormatError is something malformed in an image. Offset is counted from the start of Where.
type FormatError struct {
	Where   string // "image", "SEV metadata", "volume at 0x84000", …
	Offset  int
	Problem string
}

func (e *FormatError) Error() string {
	return fmt.Sprintf("%s, offset %#x: %s", e.Where, e.Offset, e.Problem)
}

// Area is a part of guest memory that the firmware sets aside.
type Area struct {
	Base uint32 `json:"base"`
	Size uint32 `json:"size"`
}

// Entry is one entry of the table at the end of the image.
type Entry struct {
	GUID guid.GUID
	Data []byte
}

// Image is a firmware image whose tables were read and found sound.
type Image struct {
	data     []byte
	entries  []Entry
	metadata []Section

	secret, hashes       Area
	hasSecret, hasHashes bool
	resetEIP             uint32
	hasReset             bool
}

// Parse reads the tables of an image. The Image refers to data, which must not change.
// An image without OVMF's table is ErrNotOVMF; anything malformed is a *FormatError.
func Parse(data []byte) (*Image, error) {
	if len(data) > MaxSize {
		return nil, &FormatError{"image", 0, fmt.Sprintf("%d bytes, more than %d", len(data), MaxSize)}
	}
	entries, err := parseTable(data)
	if err != nil {
		return nil, err
	}
	img := &Image{data: data, entries: entries}
	if img.secret, img.hasSecret, err = img.area(SecretAreaGUID); err != nil {
		return nil, fmt.Errorf("launch-secret area: %w", err)
	}
	if img.hashes, img.hasHashes, err = img.area(HashesAreaGUID); err != nil {
		return nil, fmt.Errorf("kernel-hashes area: %w", err)
	}
	if img.resetEIP, img.hasReset, err = img.word(ResetVectorGUID); err != nil {
		return nil, fmt.Errorf("reset vector: %w", err)
	}
	offset, ok, err := img.word(MetadataGUID)
	if err != nil {
		return nil, fmt.Errorf("SEV metadata: %w", err)
	}
	if ok {
		if img.metadata, err = parseMetadata(data, offset); err != nil {
			return nil, err
		}
	}
	return img, nil
}

// parseTable reads the table, whose entries stand one before the other from the image's end upwards.
func parseTable(data []byte) ([]Entry, error) {
	last := len(data) - tableEnd - entryHeader // the table's own length and GUID
	if last < 0 || guid.GUID(data[last+2:last+entryHeader]) != tableGUID {
		return nil, ErrNotOVMF
	}
	length := int(binary.LittleEndian.Uint16(data[last:])) // of the whole table, this trailer included
	start := last + entryHeader - length
	if length < entryHeader || start < 0 {
		return nil, &FormatError{"image", last, fmt.Sprintf("table of %d bytes in an image of %d", length, len(data))}
	}
	var entries []Entry
	seen := map[guid.GUID]bool{}
	for end := last; end > start; {
		header := end - entryHeader
		if header < start {
			return nil, &FormatError{"image", start, fmt.Sprintf("%d bytes left over before the table's first entry", end-start)}
		}
		size := int(binary.LittleEndian.Uint16(data[header:]))
		if size < entryHeader || size > end-start {
			return nil, &FormatError{"image", header, fmt.Sprintf("table entry of %d bytes, %d left", size, end-start)}
		}
		entry := Entry{GUID: guid.GUID(data[header+2 : end]), Data: data[end-size : header]}
		if seen[entry.GUID] { // readers differ in which of two they take
			return nil, &FormatError{"image", header, fmt.Sprintf("second table entry for %v", entry.GUID)}
		}
		seen[entry.GUID] = true
		entries = append(entries, entry)
		end -= size
	}
	return entries, nil
}

// Entries gives the table's entries in the order in which readers meet them: from the image's end upwards.
func (img *Image) Entries() []Entry { return img.entries }

func (img *Image) find(id guid.GUID) (data []byte, ok bool) {
	for _, e := range img.entries {
		if e.GUID == id {
			return e.Data, true
		}
	}
	return nil, false
}

// area reads an entry that names a part of guest memory. Base 0 and size 0 say "not supported".
func (img *Image) area(id guid.GUID) (Area, bool, error) {
	data, ok := img.find(id)
	if !ok {
		return Area{}, false, nil
	}
	if len(data) != 8 {
		return Area{}, false, &FormatError{"image", 0, fmt.Sprintf("table entry %v holds %d bytes, not 8", id, len(data))}
	}
	a := Area{Base: binary.LittleEndian.Uint32(data), Size: binary.LittleEndian.Uint32(data[4:])}
	if a == (Area{}) {
		return Area{}, false, nil
	}
	if a.Base == 0 || a.Size == 0 || uint64(a.Base)+uint64(a.Size) > fourGiB {
		return Area{}, false, &FormatError{"image", 0, fmt.Sprintf("table entry %v: %#x bytes at %#x", id, a.Size, a.Base)}
	}
	return a, true, nil
}

func (img *Image) word(id guid.GUID) (uint32, bool, error) {
	data, ok := img.find(id)
	if !ok {
		return 0, false, nil
	}
	if len(data) != 4 {
		return 0, false, &FormatError{"image", 0, fmt.Sprintf("table entry %v holds %d bytes, not 4", id, len(data))}
	}
	return binary.LittleEndian.Uint32(data), true, nil
}

// Bytes gives the image itself, which must not be changed.
func (img *Image) Bytes() []byte { return img.data }

// Base is the image's address in guest memory: it ends at 4 GiB.
func (img *Image) Base() uint64 { return fourGiB - uint64(len(img.data)) }

// SecretArea says where the launch secret goes, if the firmware takes one.
func (img *Image) SecretArea() (Area, bool) { return img.secret, img.hasSecret }

// HashesArea says where the hashes of kernel, initrd and command line go, if the firmware checks them.
func (img *Image) HashesArea() (Area, bool) { return img.hashes, img.hasHashes }

// ResetEIP gives the address at which a vCPU other than the first starts under SEV-ES and SEV-SNP.
func (img *Image) ResetEIP() (uint32, bool) { return img.resetEIP, img.hasReset }

// Metadata gives the sections of guest memory that SEV-SNP needs prepared, in the image's own order.
func (img *Image) Metadata() []Section { return img.metadata }
