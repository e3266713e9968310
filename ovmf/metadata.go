package ovmf

import (
	"encoding/binary"
	"fmt"
)

// SectionType says what a hypervisor puts into a section of guest memory.
type SectionType uint32

// Types of edk2 OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm.
const (
	SecMem       SectionType = 1    // memory that the firmware uses before it validates any itself
	Secrets      SectionType = 2    // the secrets page
	CPUID        SectionType = 3    // the CPUID page
	SVSMCAA      SectionType = 4    // calling area of a service module
	KernelHashes SectionType = 0x10 // the page of the kernel-hashes area
)

func (t SectionType) String() string {
	switch t {
	case SecMem:
		return "sec-mem"
	case Secrets:
		return "secrets"
	case CPUID:
		return "cpuid"
	case SVSMCAA:
		return "svsm-caa"
	case KernelHashes:
		return "kernel-hashes"
	}
	return fmt.Sprintf("type %#x", uint32(t))
}

// MarshalText makes JSON show the name.
func (t SectionType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Section is a part of guest memory that SEV-SNP needs prepared before the start. One of no bytes is what edk2 leaves of a
// page that a platform does not have, such as in OvmfPkg/Microvm: the image starts under SEV and SEV-ES, not under SEV-SNP.
type Section struct {
	GPA  uint32      `json:"gpa"`
	Size uint32      `json:"size"`
	Type SectionType `json:"type"`
}

const (
	metadataHeader  = 16  // "ASEV", u32 length, u32 version, u32 count
	metadataSection = 12  // u32 gpa, u32 size, u32 type
	maxSections     = 256 // far above the 8 of edk2
)

// parseMetadata reads the SEV metadata, which begins offset bytes before the image's end.
func parseMetadata(data []byte, offset uint32) ([]Section, error) {
	const where = "SEV metadata"
	if int64(offset) > int64(len(data)) || offset < metadataHeader {
		return nil, &FormatError{where, 0, fmt.Sprintf("starts %d bytes before the end of an image of %d", offset, len(data))}
	}
	b := data[len(data)-int(offset):]
	if string(b[:4]) != "ASEV" {
		return nil, &FormatError{where, 0, fmt.Sprintf("signature %q, not \"ASEV\"", b[:4])}
	}
	length, version, count := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	if version != 1 {
		return nil, &FormatError{where, 8, fmt.Sprintf("version %d, not 1", version)}
	}
	if want := metadataHeader + metadataSection*uint64(count); uint64(length) != want || want > uint64(len(b)) {
		return nil, &FormatError{where, 4, fmt.Sprintf("%d bytes for %d sections, %d left in the image", length, count, len(b))}
	}
	if count > maxSections {
		return nil, &FormatError{where, 12, fmt.Sprintf("%d sections, more than %d", count, maxSections)}
	}
	sections := make([]Section, count)
	for i := range sections {
		at := metadataHeader + metadataSection*i
		s := Section{
			GPA:  binary.LittleEndian.Uint32(b[at:]),
			Size: binary.LittleEndian.Uint32(b[at+4:]),
			Type: SectionType(binary.LittleEndian.Uint32(b[at+8:])),
		}
		if s.GPA%PageSize != 0 || s.Size%PageSize != 0 || uint64(s.GPA)+uint64(s.Size) > fourGiB {
			return nil, &FormatError{where, at, fmt.Sprintf("%v section of %#x bytes at %#x: not whole pages below 4 GiB", s.Type, s.Size, s.GPA)}
		}
		sections[i] = s
	}
	return sections, nil
}
