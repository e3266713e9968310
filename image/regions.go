package image

import (
	"cmp"
	"slices"

	"github.com/sealboot/sealboot/image/gpt"
)

// Region is a part of the disk, for a drawing. Its JSON form is an interface: names stay.
type Region struct {
	Kind   RegionKind `json:"kind"`
	Number int        `json:"number,omitempty"` // of a partition in the table, from 1
	Name   string     `json:"name,omitempty"`   // of a partition
	Offset int64      `json:"offset"`
	Size   int64      `json:"size"`
	Used   int64      `json:"used"` // bytes that have a place in the image file
}

// RegionKind says what a region is.
type RegionKind string

const (
	TableRegion     RegionKind = "partition_table"
	PartitionRegion RegionKind = "partition"
	HeaderRegion    RegionKind = "luks_header" // within the root partition, as the next
	DataRegion      RegionKind = "encrypted_data"
	FreeRegion      RegionKind = "free" // between partitions
)

// regions cuts the disk, in ascending order; the parts of the root partition follow it.
func (d *Disk) regions() ([]Region, error) {
	size := d.image.Size()
	list := []Region{{Kind: TableRegion, Size: gpt.HeadSize}}
	at := int64(gpt.HeadSize)
	free := func(to int64) {
		if to > at {
			list = append(list, Region{Kind: FreeRegion, Offset: at, Size: to - at})
		}
	}
	for _, p := range slices.SortedFunc(slices.Values(d.Partitions), func(a, b gpt.Partition) int { return cmp.Compare(a.Offset, b.Offset) }) {
		free(p.Offset)
		list = append(list, Region{Kind: PartitionRegion, Number: 1 + slices.Index(d.Partitions, p), Name: p.Name, Offset: p.Offset, Size: p.Size})
		if p == d.Root {
			base, payload := d.payload()
			list = append(list, Region{Kind: HeaderRegion, Offset: p.Offset, Size: base - p.Offset}, Region{Kind: DataRegion, Offset: base, Size: payload})
		}
		at = p.Offset + p.Size
	}
	free(size - gpt.TailSize)
	list = append(list, Region{Kind: TableRegion, Offset: size - gpt.TailSize, Size: gpt.TailSize})
	err := d.image.Allocated(func(off, n int64) error {
		for i, r := range list {
			list[i].Used += max(0, min(off+n, r.Offset+r.Size)-max(off, r.Offset))
		}
		return nil
	})
	return list, err
}
