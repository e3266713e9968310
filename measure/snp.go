package measure

import (
	"bytes"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/sealboot/sealboot/ovmf"
)

const (
	ldSize   = sha512.Size384
	pageSize = ovmf.PageSize

	// vmsaGPA is the address that a VMSA page is measured under (-1 without the bits above 47 and those within a page, as KVM passes it).
	vmsaGPA = 0xfffffffff000
)

// pageType is PAGE_TYPE of SNP_LAUNCH_UPDATE (SNP ABI).
type pageType uint8

const (
	pageNormal     pageType = 1
	pageVMSA       pageType = 2
	pageZero       pageType = 3
	pageUnmeasured pageType = 4
	pageSecrets    pageType = 5
	pageCPUID      pageType = 6
)

// launch is the digest as it grows page by page (SNP ABI, SNP_LAUNCH_UPDATE, PAGE_INFO).
type launch struct{ ld [ldSize]byte }

const pageInfoSize = 0x70

func (l *launch) update(kind pageType, gpa uint64, contents [ldSize]byte) {
	var info [pageInfoSize]byte
	copy(info[0:], l.ld[:])
	copy(info[48:], contents[:])
	binary.LittleEndian.PutUint16(info[96:], pageInfoSize)
	info[98] = byte(kind) // 99 to 103: not an IMI page, no permissions for VMPL 3 to 1
	binary.LittleEndian.PutUint64(info[104:], gpa)
	l.ld = sha512.Sum384(info[:])
}

// data measures pages with contents.
func (l *launch) data(kind pageType, gpa uint64, data []byte) {
	for i, sum := range pageSums(data) {
		l.update(kind, gpa+uint64(i)*pageSize, sum)
	}
}

// pageSums hashes each page, on all cores. Firmware has many equal pages in a row, which are hashed once.
func pageSums(data []byte) [][ldSize]byte {
	sums := make([][ldSize]byte, len(data)/pageSize)
	part := max(64, (len(sums)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for from := 0; from < len(sums); from += part {
		to := min(from+part, len(sums))
		wg.Go(func() {
			var before []byte
			for i := from; i < to; i++ {
				page := data[i*pageSize : (i+1)*pageSize]
				if before != nil && bytes.Equal(page, before) {
					sums[i] = sums[i-1]
				} else {
					sums[i] = sha512.Sum384(page)
				}
				before = page
			}
		})
	}
	wg.Wait()
	return sums
}

// blank measures pages whose contents do not count.
func (l *launch) blank(kind pageType, gpa, size uint64) {
	for end := gpa + size; gpa < end; gpa += pageSize {
		l.update(kind, gpa, [ldSize]byte{})
	}
}

// maxBlank bounds the pages that metadata can ask to be measured: 64 MiB, where real firmware asks for less than 1.
const maxBlank = 64 << 20

func (s Spec) snpDigest(img *ovmf.Image) ([]byte, error) {
	if len(s.Firmware)%pageSize != 0 {
		return nil, fmt.Errorf("%w: firmware of %d bytes is not whole pages", ErrSpec, len(s.Firmware))
	}
	var l launch
	if s.OVMFHash != nil {
		copy(l.ld[:], s.OVMFHash)
	} else {
		l.data(pageNormal, img.Base(), s.Firmware)
	}
	if s.Mode == SNPOVMFHash {
		return bytes.Clone(l.ld[:]), nil
	}
	if err := s.snpMetadata(&l, img); err != nil {
		return nil, err
	}
	pages, err := s.vmsaPages(img, s.GuestFeatures)
	if err != nil {
		return nil, err
	}
	for i := range s.VCPUs {
		l.data(pageVMSA, vmsaGPA, pages.of(i))
	}
	return bytes.Clone(l.ld[:]), nil
}

// snpMetadata measures the sections that the firmware asks for, in its own order.
func (s Spec) snpMetadata(l *launch, img *ovmf.Image) error {
	var hashed bool
	var total uint64
	for _, section := range img.Metadata() {
		if section.Size == 0 {
			return fmt.Errorf("%w: SEV metadata has a %v section of no bytes: the firmware is not built for SEV-SNP", ErrSpec, section.Type)
		}
	}
	for _, section := range img.Metadata() {
		gpa, size := uint64(section.GPA), uint64(section.Size)
		if total += size; total > maxBlank {
			return fmt.Errorf("%w: SEV metadata asks for more than %d bytes", ErrSpec, maxBlank)
		}
		if one := section.Type == ovmf.Secrets || section.Type == ovmf.CPUID; one && size != pageSize {
			return fmt.Errorf("%w: %v section of %#x bytes, not one page", ErrSpec, section.Type, size)
		}
		switch section.Type {
		case ovmf.SecMem:
			kind := pageZero
			if s.vmm() == GCE {
				kind = pageUnmeasured
			}
			l.blank(kind, gpa, size)
		case ovmf.SVSMCAA:
			l.blank(pageZero, gpa, size)
		case ovmf.Secrets:
			l.blank(pageSecrets, gpa, pageSize)
		case ovmf.CPUID:
			if s.vmm() != EC2 { // EC2 does it last
				l.blank(pageCPUID, gpa, pageSize)
			}
		case ovmf.KernelHashes:
			if !s.HashKernel {
				l.blank(pageZero, gpa, size)
				continue
			}
			page, err := s.hashesPage(img, section)
			if err != nil {
				return err
			}
			l.data(pageNormal, gpa, page)
			hashed = true
		default:
			return fmt.Errorf("%w: SEV metadata has a section of unknown %v", ErrSpec, section.Type)
		}
	}
	if s.vmm() == EC2 {
		for _, section := range img.Metadata() {
			if section.Type == ovmf.CPUID {
				l.blank(pageCPUID, uint64(section.GPA), pageSize)
			}
		}
	}
	if s.HashKernel && !hashed {
		return fmt.Errorf("%w: its SEV metadata has no %v section", ErrNoKernelHashes, ovmf.KernelHashes)
	}
	return nil
}

// hashesPage is the page of the metadata's section with the hashes table where the table of the image says.
func (s Spec) hashesPage(img *ovmf.Image, section ovmf.Section) ([]byte, error) {
	area, ok := img.HashesArea()
	if !ok {
		return nil, ErrNoKernelHashes
	}
	table := s.hashesTable()
	offset := int64(area.Base) - int64(section.GPA)
	if section.Size != pageSize || int64(area.Size) < int64(len(table)) || offset < 0 || offset+int64(len(table)) > pageSize {
		return nil, fmt.Errorf("%w: area of %#x bytes at %#x does not fit the %v section of %#x bytes at %#x",
			ErrNoKernelHashes, area.Size, area.Base, section.Type, section.Size, section.GPA)
	}
	page := make([]byte, pageSize)
	copy(page[offset:], table)
	return page, nil
}
