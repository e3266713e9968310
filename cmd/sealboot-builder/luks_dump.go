package main

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/luks"
)

// luksDump is what `luks dump --json` prints.
type luksDump struct {
	Version   int             `json:"version"`
	UUID      string          `json:"uuid"`
	Label     string          `json:"label"`
	Sequence  uint64          `json:"sequence"`
	CopyUsed  string          `json:"copy_used"`
	OtherCopy string          `json:"other_copy"`
	Segment   luksDumpSegment `json:"segment"`
	KeySlots  []luksDumpSlot  `json:"key_slots"`
	HeaderPin luks.Pin        `json:"header_pin"`
}

type luksDumpSegment struct {
	Offset     int64  `json:"offset"`
	Size       int64  `json:"size"`
	SectorSize int    `json:"sector_size"`
	IVTweak    uint64 `json:"iv_tweak"`
	Cipher     string `json:"cipher"`
	KeyBytes   int    `json:"key_bytes"`
}

type luksDumpSlot struct {
	Slot       int          `json:"slot"`
	Priority   int          `json:"priority"`
	Offset     int64        `json:"offset"`
	Size       int64        `json:"size"`
	KDF        luks.KDFType `json:"kdf"`
	Hash       string       `json:"hash,omitempty"`
	Iterations int          `json:"iterations,omitempty"`
	Time       int          `json:"time,omitempty"`
	MemoryKiB  int          `json:"memory_kib,omitempty"`
	Parallel   int          `json:"parallel,omitempty"`
}

func (a *app) luksDumpCommand() *cobra.Command {
	var offset cli.ByteSize
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "dump FILE",
		Short: "Show the header of an encrypted disk",
		Long: `Show a LUKS2 or LUKS1 header. It holds no secret that is not encrypted.

With --json: version, uuid, label, sequence, copy_used (primary or secondary), other_copy
(same, or what is wrong with it), segment {offset, size (0: to the end), sector_size, iv_tweak,
cipher, key_bytes}, key_slots [{slot, priority, offset, size, kdf, and hash and iterations,
or time, memory_kib and parallel}], header_pin (what a boot record pins: it stays
the same when passphrases change).`,
		Example: `  sealboot luks dump disk
  sealboot luks dump disk --json | jq -r .header_pin`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, h, err := a.openHeader(args[0], offset, false)
			if err != nil {
				return err
			}
			defer f.Close()
			dump := newLUKSDump(h)
			if asJSON {
				out := json.NewEncoder(a.stdout)
				out.SetIndent("", "  ")
				return out.Encode(dump)
			}
			return dump.print(a.stdout)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	offset.AddOffset(cmd)
	return cmd
}

func newLUKSDump(h *luks.Header) luksDump {
	status := h.Status()
	dump := luksDump{
		Version: status.Version, UUID: h.UUID(), Label: h.Label(), Sequence: status.Sequence, CopyUsed: status.Used.String(),
		OtherCopy: "same", Segment: luksDumpSegment(h.Segment()), KeySlots: []luksDumpSlot{}, HeaderPin: h.Pin(),
	}
	if status.Other != nil {
		dump.OtherCopy = status.Other.Error()
	}
	if status.Version == 1 {
		dump.OtherCopy = "LUKS1 has none"
	}
	for _, s := range h.Slots() {
		dump.KeySlots = append(dump.KeySlots, luksDumpSlot{
			Slot: s.ID, Priority: s.Priority, Offset: s.Offset, Size: s.Size, KDF: s.KDF.Type, Hash: s.KDF.Hash,
			Iterations: s.KDF.Iterations, Time: s.KDF.Time, MemoryKiB: s.KDF.MemoryKiB, Parallel: s.KDF.Parallel,
		})
	}
	return dump
}

func (d luksDump) print(w io.Writer) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(out, "LUKS version\t%d\n", d.Version)
	fmt.Fprintf(out, "UUID\t%s\n", d.UUID)
	fmt.Fprintf(out, "label\t%s\n", d.Label)
	fmt.Fprintf(out, "header\t%s copy, sequence number %d; the other copy: %s\n", d.CopyUsed, d.Sequence, d.OtherCopy)
	size := "to the end"
	if d.Segment.Size != 0 {
		size = fmt.Sprintf("%d bytes", d.Segment.Size)
	}
	fmt.Fprintf(out, "data\tfrom byte %d, %s, %s, sectors of %d bytes, volume key of %d bits, IV tweak %d\n",
		d.Segment.Offset, size, d.Segment.Cipher, d.Segment.SectorSize, d.Segment.KeyBytes*8, d.Segment.IVTweak)
	for _, s := range d.KeySlots {
		cost := fmt.Sprintf("%s, %d iterations", s.Hash, s.Iterations)
		if s.KDF != luks.PBKDF2 {
			cost = fmt.Sprintf("%d passes over %d KiB, %d lanes", s.Time, s.MemoryKiB, s.Parallel)
		}
		fmt.Fprintf(out, "key slot %d\t%s, %s\n", s.Slot, s.KDF, cost)
	}
	fmt.Fprintf(out, "header pin\t%v\n", d.HeaderPin)
	return out.Flush()
}
