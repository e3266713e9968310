package measure

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/ovmf"
)

// Series computes many digests of one firmware: it hashes the firmware once, and each further vCPU costs one
// update of the digest. It is safe for concurrent use.
type Series struct {
	img *ovmf.Image
	sha func() (hash.Cloner, error) // SHA-256 after the firmware
	snp func() *launch              // the SNP digest after the firmware's pages; nil: not whole pages

	svsm *svsmLaunch // nil: no SVSM
}

// NewSeries reads a firmware, which must not change. It is hashed when a mode first needs it.
func NewSeries(firmware []byte) (*Series, error) {
	img, err := ovmf.Parse(firmware)
	if err != nil {
		return nil, fmt.Errorf("read firmware: %w", err)
	}
	return &Series{
		img: img,
		sha: sync.OnceValues(func() (hash.Cloner, error) {
			h := sha256.New()
			h.Write(firmware)
			if c, ok := h.(hash.Cloner); ok {
				return c, nil
			}
			return nil, fmt.Errorf("hash firmware: %T cannot be cloned", h)
		}),
		snp: sync.OnceValue(func() *launch {
			if len(firmware)%pageSize != 0 {
				return nil
			}
			l := new(launch)
			l.data(pageNormal, img.Base(), firmware)
			return l
		}),
	}, nil
}

// WithSVSM gives the series of the firmware's launches with an SVSM, which must not change, below a variable store of
// that size. It knows mode SNPSVSM alone.
func (f *Series) WithSVSM(svsm []byte, varsSize int64) (*Series, error) {
	v, err := f.newSVSM(svsm, varsSize)
	if err != nil {
		return nil, err
	}
	return &Series{img: f.img, sha: f.sha, snp: f.snp, svsm: v}, nil
}

// Each gives the digests of the launch with 1, 2, … up to s.VCPUs vCPUs, where its mode is one that measures
// vCPUs, and its one digest elsewhere. The firmware and SVSM of s, and its kernel, initrd and command line are not looked
// at: in place of the last three stands the table of their hashes, as HashesTable makes it, or nil for none.
// A digest is each's own only until it returns. Firmware without a start address for a second vCPU has one digest only.
func (f *Series) Each(s Spec, table []byte, each func(vcpus int, digest []byte)) error {
	s.Firmware, s.Kernel, s.Initrd, s.HasInitrd, s.Append, s.HashKernel = f.img.Bytes(), nil, nil, false, "", false
	if f.svsm != nil {
		s.SVSM, s.VarsSize = f.svsm.image, f.svsm.varsSize
	}
	if err := s.Validate(); err != nil {
		return err
	}
	if s.Mode == SNPSVSM && table != nil {
		return fmt.Errorf("%w: %w", ErrSpec, ErrNoKernelHashes)
	}
	if table != nil && len(table) != hashesPadded {
		return fmt.Errorf("%w: hashes table of %d bytes, not %d", ErrSpec, len(table), hashesPadded)
	}
	if f.svsm != nil { // Validate took mode SNPSVSM alone
		return f.svsm.each(s, each)
	}
	if eip, ok := f.img.ResetEIP(); !ok || eip == 0 {
		s.VCPUs = min(s.VCPUs, 1)
	}
	switch s.Mode {
	case SEV, SEVES:
		return f.eachSHA256(s, table, each)
	case SNP:
		return f.eachSNP(s, table, each)
	}
	return fmt.Errorf("%w: mode %s is no launch", ErrSpec, s.Mode)
}

func (f *Series) eachSHA256(s Spec, table []byte, each func(int, []byte)) error {
	sha, err := f.sha()
	if err != nil {
		return err
	}
	h, err := sha.Clone()
	if err != nil {
		return err
	}
	if table != nil {
		if area, ok := f.img.HashesArea(); !ok || int64(area.Size) < int64(len(table)) {
			return ErrNoKernelHashes
		}
		h.Write(table)
	}
	var sum [sha256.Size]byte
	if s.Mode == SEV {
		each(0, h.Sum(sum[:0]))
		return nil
	}
	pages, err := s.vmsaPages(f.img, s.GuestFeatures)
	if err != nil {
		return err
	}
	for i := range s.VCPUs {
		h.Write(pages.of(i))
		each(i+1, h.Sum(sum[:0]))
	}
	return nil
}

func (f *Series) eachSNP(s Spec, table []byte, each func(int, []byte)) error {
	pages := f.snp()
	if pages == nil {
		return fmt.Errorf("%w: firmware is not whole pages", ErrSpec)
	}
	l := *pages
	s.table, s.HashKernel = table, table != nil
	if err := s.snpMetadata(&l, f.img); err != nil {
		return err
	}
	cpus, err := s.vmsaPages(f.img, s.GuestFeatures)
	if err != nil {
		return err
	}
	first := sha512.Sum384(cpus.first)
	var other [ldSize]byte
	if cpus.other != nil {
		other = sha512.Sum384(cpus.other)
	}
	for i := range s.VCPUs {
		contents := first
		if i > 0 {
			contents = other
		}
		l.update(pageVMSA, vmsaGPA, contents)
		each(i+1, l.ld[:])
	}
	return nil
}

// HashesTable is KernelHashes for what was hashed before: kernel, initrd, and command line with its trailing NUL.
func HashesTable(kernel, initrd, cmdline [sha256.Size]byte) []byte {
	table := make([]byte, 0, hashesPadded)
	table = append(table, hashesTableGUID[:]...)
	table = binary.LittleEndian.AppendUint16(table, hashesTableSize)
	for _, entry := range []struct {
		id   guid.GUID
		hash [sha256.Size]byte
	}{{cmdlineEntryGUID, cmdline}, {initrdEntryGUID, initrd}, {kernelEntryGUID, kernel}} {
		table = append(table, entry.id[:]...)
		table = binary.LittleEndian.AppendUint16(table, hashesEntrySize)
		table = append(table, entry.hash[:]...)
	}
	return table[:hashesPadded]
}

// hashesTable is the table that is measured.
func (s Spec) hashesTable() []byte {
	if s.table != nil {
		return s.table
	}
	return KernelHashes(s.Kernel, s.Initrd, s.Append)
}
