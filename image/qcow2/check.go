package qcow2

import (
	"context"
	"encoding/binary"
	"fmt"
)

// Summary is what Check found in a good image.
type Summary struct {
	DiskSize    int64 // bytes of the disk
	ClusterSize int64
	Allocated   int64 // bytes of the disk that have a place in the file
	Clusters    int64 // clusters of the file in use, tables included
	Leaked      int64 // clusters that are counted but not used: room that is lost, and no harm
}

// maxClusters bounds the map of used clusters to 128 MiB: 64 TiB of a usual image.
const maxClusters = 1 << 30

// Check looks at every table of an image, which must be a plain one such as a Writer makes: nothing
// may lie outside the file or be used twice, and the reference count of all that is used must be one. Clusters that are
// counted but not used, which a killed QEMU leaves behind, are counted in the Summary.
func (r *Reader) Check(ctx context.Context) (*Summary, error) {
	if r.header.odd != nil {
		return nil, r.header.odd
	}
	total := (r.fileSize + r.cluster - 1) / r.cluster
	if total > maxClusters {
		return nil, unsupported("%d clusters", total)
	}
	used := &clusterMap{bits: make([]uint64, (total+63)/64), cluster: r.cluster, total: total}
	sum := &Summary{DiskSize: r.Size(), ClusterSize: r.cluster}
	if err := r.mark(ctx, used, sum); err != nil {
		return nil, err
	}
	if err := r.compareCounts(ctx, used, sum); err != nil {
		return nil, err
	}
	sum.Clusters = used.count
	return sum, nil
}

// mark notes every cluster that the image uses.
func (r *Reader) mark(ctx context.Context, used *clusterMap, sum *Summary) error {
	h := r.header
	if err := used.mark(0, 1, "the header"); err != nil {
		return err
	}
	if err := used.mark(int64(h.l1Offset), (int64(h.l1Entries)*8+r.cluster-1)/r.cluster, "the L1 table"); err != nil {
		return err
	}
	if int64(h.refcountClusters)*r.cluster > maxRefcountTable || h.refcountClusters == 0 {
		return broken(56, "a reference count table of %d clusters", h.refcountClusters)
	}
	if err := r.checkPlace(48, h.refcountOffset, "the reference count table"); err != nil {
		return err
	}
	if err := used.mark(int64(h.refcountOffset), int64(h.refcountClusters), "the reference count table"); err != nil {
		return err
	}
	if _, err := r.readL1(true); err != nil {
		return err
	}
	for i, table := range r.l1 {
		if table == 0 {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := used.mark(table, 1, "an L2 table"); err != nil {
			return err
		}
		entries, err := r.readL2(i, true)
		if err != nil {
			return err
		}
		for _, entry := range entries {
			if entry.host == 0 {
				continue
			}
			if err := used.mark(entry.host, 1, "data"); err != nil {
				return err
			}
			if entry.present != 0 {
				sum.Allocated += r.cluster
			}
		}
	}
	return nil
}

// compareCounts reads all reference counts: one for a used cluster. Others that are counted are leaked.
func (r *Reader) compareCounts(ctx context.Context, used *clusterMap, sum *Summary) error {
	table := make([]byte, int64(r.header.refcountClusters)*r.cluster)
	if err := r.read(table, int64(r.header.refcountOffset)); err != nil {
		return fmt.Errorf("read QCOW2 reference counts: %w", err)
	}
	for i := 0; i < len(table); i += 8 {
		at, entry := int64(r.header.refcountOffset)+int64(i), binary.BigEndian.Uint64(table[i:])
		if entry == 0 {
			continue
		}
		if entry&^refcountMask != 0 || entry > 1<<62 {
			return broken(at, "reference count table entry %#x has unknown bits", entry)
		}
		if err := r.checkPlace(at, entry, "a reference count block"); err != nil {
			return err
		}
		if err := used.mark(int64(entry), 1, "a reference count block"); err != nil {
			return err
		}
	}
	block, perBlock := make([]byte, r.cluster), r.cluster/2
	for i := int64(0); i < int64(len(table)/8); i++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry := int64(binary.BigEndian.Uint64(table[i*8:]))
		if entry == 0 {
			if first := used.first(i*perBlock, perBlock); first >= 0 {
				return broken(first*r.cluster, "this cluster is used, but has no reference count")
			}
			continue
		}
		if err := r.read(block, entry); err != nil {
			return fmt.Errorf("read QCOW2 reference counts: %w", err)
		}
		for j := range perBlock {
			got, isUsed := binary.BigEndian.Uint16(block[j*2:]), used.has(i*perBlock+j)
			if isUsed && got != 1 {
				return broken((i*perBlock+j)*r.cluster, "this cluster is used once, its reference count is %d", got)
			} else if !isUsed && got != 0 {
				sum.Leaked++
			}
		}
	}
	if beyond := int64(len(table)/8) * perBlock; beyond < used.total {
		if first := used.first(beyond, used.total-beyond); first >= 0 {
			return broken(first*r.cluster, "this cluster is used, but has no reference count")
		}
	}
	return nil
}

// clusterMap remembers which clusters of the file are in use.
type clusterMap struct {
	bits           []uint64
	cluster, total int64
	count          int64
}

func (m *clusterMap) mark(offset, n int64, what string) error {
	for i := offset / m.cluster; n > 0; i, n = i+1, n-1 {
		if i >= m.total {
			return broken(i*m.cluster, "%s ends beyond the file", what)
		}
		if m.has(i) {
			return broken(i*m.cluster, "this cluster is used twice, here for %s", what)
		}
		m.bits[i/64] |= 1 << (i % 64)
		m.count++
	}
	return nil
}

func (m *clusterMap) has(i int64) bool {
	return i < m.total && m.bits[i/64]&(1<<(i%64)) != 0
}

// first gives the first used cluster among n from start, or -1.
func (m *clusterMap) first(start, n int64) int64 {
	for i := start; i < min(start+n, m.total); i++ {
		if m.bits[i/64] == 0 {
			i |= 63
			continue
		}
		if m.has(i) {
			return i
		}
	}
	return -1
}
