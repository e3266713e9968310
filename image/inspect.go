package image

import (
	"context"
	"io"

	"github.com/sealboot/sealboot/luks"
)

// Report is what Inspect shows of a disk. Its JSON form is an interface: names stay.
type Report struct {
	Format     Format            `json:"format"`
	DiskSize   int64             `json:"disk_size"`    // bytes of the disk
	FileSize   int64             `json:"file_size"`    // bytes of the image file
	Allocated  int64             `json:"allocated"`    // bytes of the disk that have a place in the file
	Cluster    int64             `json:"cluster_size"` // the unit of that; 0 for a raw disk
	Leaked     int64             `json:"leaked"`       // clusters that are counted but not used
	Partitions []PartitionReport `json:"partitions"`
	LUKS       LUKSReport        `json:"luks"` // of the root partition
	Regions    []Region          `json:"regions"`
	// PayloadUsed is how much of the encrypted data has a place in the file.
	PayloadUsed int64 `json:"payload_used"`
}

// PartitionReport describes a partition.
type PartitionReport struct {
	Type   string `json:"type"`
	ID     string `json:"id"`
	Name   string `json:"name"`
	Offset int64  `json:"offset"`
	Size   int64  `json:"size"`
	Root   bool   `json:"root"` // the one that is opened
}

// LUKSReport describes the LUKS header.
type LUKSReport struct {
	Version     int          `json:"version"`
	UUID        string       `json:"uuid"`
	Label       string       `json:"label"`
	HeaderPin   luks.Pin     `json:"header_pin"`
	Cipher      string       `json:"cipher"`
	KeyBits     int          `json:"key_bits"`
	SectorSize  int          `json:"sector_size"`
	DataOffset  int64        `json:"data_offset"` // from the partition's start
	PayloadSize int64        `json:"payload_size"`
	CopyUsed    string       `json:"copy_used"`
	OtherCopy   string       `json:"other_copy"` // "good", or what is wrong with it
	KeySlots    []SlotReport `json:"key_slots"`
}

// SlotReport describes a key slot.
type SlotReport struct {
	ID         int    `json:"id"`
	KDF        string `json:"kdf"`
	Hash       string `json:"hash,omitempty"`
	Iterations int    `json:"iterations,omitempty"`
	Time       int    `json:"time,omitempty"`
	MemoryKiB  int    `json:"memory_kib,omitempty"`
	Parallel   int    `json:"parallel,omitempty"`
}

// Inspect shows what a disk says of itself without a passphrase. It checks the structure as Open does.
func Inspect(ctx context.Context, file io.ReaderAt, size int64) (*Report, error) {
	d, err := Open(ctx, file, size)
	if err != nil {
		return nil, err
	}
	r := &Report{
		Format: d.Format, DiskSize: d.Container.DiskSize, FileSize: size, Allocated: d.Container.Allocated,
		Cluster: d.Container.ClusterSize, Leaked: d.Container.Leaked,
	}
	for _, p := range d.Partitions {
		r.Partitions = append(r.Partitions, PartitionReport{
			Type: p.Type.String(), ID: p.ID.String(), Name: p.Name, Offset: p.Offset, Size: p.Size, Root: p == d.Root,
		})
	}
	r.LUKS = d.reportLUKS()
	if r.Regions, err = d.regions(); err != nil {
		return nil, err
	}
	for _, region := range r.Regions {
		if region.Kind == DataRegion {
			r.PayloadUsed = region.Used
		}
	}
	return r, nil
}

func (d *Disk) reportLUKS() LUKSReport {
	h, segment, status := d.Header, d.Header.Segment(), d.Header.Status()
	_, size := d.payload()
	r := LUKSReport{
		Version: status.Version, UUID: h.UUID(), Label: h.Label(), HeaderPin: h.Pin(), Cipher: segment.Cipher, KeyBits: segment.KeyBytes * 8,
		SectorSize: segment.SectorSize, DataOffset: segment.Offset, PayloadSize: size,
		CopyUsed: status.Used.String(), OtherCopy: "good", KeySlots: []SlotReport{},
	}
	if status.Other != nil {
		r.OtherCopy = status.Other.Error()
	}
	for _, s := range h.Slots() {
		r.KeySlots = append(r.KeySlots, SlotReport{
			ID: s.ID, KDF: string(s.KDF.Type), Hash: s.KDF.Hash, Iterations: s.KDF.Iterations,
			Time: s.KDF.Time, MemoryKiB: s.KDF.MemoryKiB, Parallel: s.KDF.Parallel,
		})
	}
	return r
}
