package main

import (
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/progress"
)

func printReport(w io.Writer, r *image.Report) {
	fmt.Fprintf(w, "disk        %s, %s of it in use, in a file of %s (%s)\n", progress.Bytes(r.DiskSize), progress.Bytes(r.Allocated), progress.Bytes(r.FileSize), r.Format)
	if r.Leaked > 0 {
		fmt.Fprintf(w, "            %d clusters are counted but not used: qemu-img check -r leaks frees them\n", r.Leaked)
	}
	drawRegions(w, r.Regions)
	for i, p := range r.Partitions {
		fmt.Fprintf(w, "partition %d %s at %s, %q, type %s\n", i+1, progress.Bytes(p.Size), progress.Bytes(p.Offset), p.Name, p.Type)
	}
	l := r.LUKS
	fmt.Fprintf(w, "LUKS%d       %s, key of %d bits, sectors of %d bytes, data from %s, payload %s\n",
		l.Version, l.Cipher, l.KeyBits, l.SectorSize, progress.Bytes(l.DataOffset), progress.Bytes(l.PayloadSize))
	fmt.Fprintf(w, "UUID        %s\nheader pin  %s\n", l.UUID, l.HeaderPin)
	if l.OtherCopy != "good" {
		fmt.Fprintf(w, "header      taken from the %s copy; the other: %s\n", l.CopyUsed, l.OtherCopy)
	}
	for _, s := range l.KeySlots {
		cost := fmt.Sprintf("%s, %d iterations", s.Hash, s.Iterations)
		if s.MemoryKiB > 0 {
			cost = fmt.Sprintf("%d passes, %s, %d lanes; not for GRUB", s.Time, progress.Bytes(int64(s.MemoryKiB)<<10), s.Parallel)
		}
		fmt.Fprintf(w, "key slot %d  %s (%s)\n", s.ID, s.KDF, cost)
	}
}

func printFileSystem(w io.Writer, f *fileSystemReport) {
	inodes := ""
	if f.Inodes > 0 {
		inodes = fmt.Sprintf(", %d of %d inodes free", f.FreeInodes, f.Inodes)
	}
	fmt.Fprintf(w, "%-11s label %s, UUID %s, %s in blocks of %d bytes, %s free%s\n",
		f.Kind, strconv.Quote(f.Label), f.UUID, progress.Bytes(f.Size), f.BlockSize, progress.Bytes(f.Free), inodes)
}

// fileSystemReport is what inspect shows of a file system that it can decrypt.
type fileSystemReport struct {
	Kind       string   `json:"kind"`
	UUID       string   `json:"uuid"`
	Label      string   `json:"label"`
	BlockSize  int      `json:"block_size"`
	Size       int64    `json:"size"`
	Free       int64    `json:"free"`
	Inodes     uint32   `json:"inodes"`
	FreeInodes uint32   `json:"free_inodes"`
	Clean      bool     `json:"clean"`
	Features   []string `json:"features"`
}

func reportOf(f image.FileSystem, clean bool) *fileSystemReport {
	x := hex.EncodeToString(f.UUID[:])
	return &fileSystemReport{
		Kind: f.Kind, UUID: strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-"), Label: f.Label, BlockSize: f.BlockSize, Size: f.Size,
		Free: f.Free, Inodes: f.Inodes, FreeInodes: f.FreeInodes, Clean: clean, Features: f.Features,
	}
}

// drawRegions draws what lies where, in lines of at most 80 characters: place, what it is, size; of the LUKS header and
// the data also how much has a place in the file.
func drawRegions(w io.Writer, regions []image.Region) {
	const bar, names = 18, 25
	fmt.Fprintln(w)
	for _, r := range regions {
		what := map[image.RegionKind]string{
			image.TableRegion: "partition table", image.FreeRegion: "not in a partition", image.HeaderRegion: "  LUKS header", image.DataRegion: "  encrypted data",
		}[r.Kind]
		if r.Kind == image.PartitionRegion {
			name := []rune(quoted(r.Name))
			what = fmt.Sprintf("%d %s", r.Number, string(name[:min(len(name), names-4)]))
		}
		line := fmt.Sprintf("%10s  %-*s %10s", progress.Bytes(r.Offset), names, what, progress.Bytes(r.Size))
		if r.Kind == image.HeaderRegion || r.Kind == image.DataRegion {
			full := 0
			if r.Used > 0 {
				full = max(1, int(float64(r.Used)/float64(r.Size)*bar))
			}
			line += fmt.Sprintf("  [%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", bar-full), progress.Bytes(r.Used))
		}
		fmt.Fprintln(w, line)
	}
	if len(regions) > 0 {
		last := regions[len(regions)-1]
		fmt.Fprintf(w, "%10s  end\n\n", progress.Bytes(last.Offset+last.Size))
	}
}
