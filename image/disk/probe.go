package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sealboot/sealboot/image/btrfs"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/fat"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/image/xfs"
)

// Kind is what a volume holds, as blkid names it. The empty Kind is not known.
type Kind string

// The kinds that are told apart.
const (
	Ext2     Kind = "ext2"
	Ext3     Kind = "ext3"
	Ext4     Kind = "ext4"
	XFS      Kind = "xfs"
	Btrfs    Kind = "btrfs"
	FAT      Kind = "vfat"
	Swap     Kind = "swap"
	LUKS     Kind = "crypto_LUKS"
	LVM      Kind = "LVM2_member"
	NTFS     Kind = "ntfs"
	Squashfs Kind = "squashfs"
)

// Ext says whether package ext4 is the one for it.
func (k Kind) Ext() bool { return k == Ext2 || k == Ext3 || k == Ext4 }

// Linux says whether a root file system may be of this kind.
func (k Kind) Linux() bool { return k.Ext() || k == XFS || k == Btrfs }

// probe recognizes what a volume holds by magic numbers, which stand where util-linux's
// libblkid/src/superblocks looks for them.
func (d *Disk) probe(v *Volume) error {
	r := d.Section(*v)
	head := make([]byte, min(68<<10, v.Size))
	if n, err := r.ReadAt(head, 0); n < len(head) && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read partition %d: %w", v.Number, err)
	}
	at := func(off, n int) []byte {
		if off+n > len(head) {
			return make([]byte, n)
		}
		return head[off:][:n]
	}
	is := func(off int, magic string) bool { return string(at(off, len(magic))) == magic }
	switch {
	case is(0, "LUKS\xba\xbe"):
		v.FileSystem, v.UUID = LUKS, text(at(168, 40))
	case is(0, "XFSB"):
		v.FileSystem, v.UUID, v.Label = XFS, uuid(at(32, 16)), text(at(108, 12))
	case is(0x10040, "_BHRfS_M"):
		v.FileSystem, v.UUID, v.Label = Btrfs, uuid(at(0x10020, 16)), text(at(0x1012b, 256))
	case is(1024+56, "\x53\xef"):
		super := at(1024, 1024)
		v.FileSystem, v.UUID, v.Label = extKind(super), uuid(super[104:120]), text(super[120:136])
	case is(4096-10, "SWAPSPACE2"):
		v.FileSystem, v.UUID, v.Label = Swap, uuid(at(1024+12, 16)), text(at(1024+28, 16))
	case is(0, "LABELONE") || is(512, "LABELONE") || is(1024, "LABELONE") || is(1536, "LABELONE"):
		v.FileSystem = LVM
	case is(0, "hsqs"):
		v.FileSystem = Squashfs
	case is(3, "NTFS    "):
		v.FileSystem = NTFS
	default:
		if f, err := fat.Open(r, v.Size); err == nil {
			v.FileSystem, v.UUID, v.Label = FAT, f.UUID(), f.Label()
		}
	}
	return nil
}

// extKind tells the three apart as libblkid does: ext4 has features that ext3 does not know, ext3 a journal.
func extKind(super []byte) Kind {
	le := binary.LittleEndian
	const (
		journal   = 0x4              // compatible
		ext3Incom = 0x2 | 0x4 | 0x10 // filetype, recover, meta_bg
		ext3RO    = 0x1 | 0x2 | 0x4  // sparse_super, large_file, btree_dir
	)
	switch {
	case le.Uint32(super[96:])&^ext3Incom != 0 || le.Uint32(super[100:])&^ext3RO != 0:
		return Ext4
	case le.Uint32(super[92:])&journal != 0:
		return Ext3
	}
	return Ext2
}

func text(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{0})
	return strings.ToValidUTF8(string(b), "?")
}

func uuid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}

// Tree is a file system whose files can be read.
type Tree interface {
	source.Source
	ReadDir(path string) ([]string, error)
	ReadFile(path string, most int64) ([]byte, error)
}

// Tree opens a volume's file system; of Btrfs it is the default subvolume. ErrKind says that there is no reader for it.
func (d *Disk) Tree(v Volume) (Tree, error) {
	switch {
	case v.FileSystem.Ext():
		return treeOf(ext4.Open(d.Section(v), v.Size))
	case v.FileSystem == XFS:
		return treeOf(xfs.Open(d.Section(v), v.Size))
	case v.FileSystem == Btrfs:
		return treeOf(btrfs.Open(d.Section(v), v.Size))
	case v.FileSystem == FAT:
		return treeOf(fat.Open(d.Section(v), v.Size))
	}
	return nil, fmt.Errorf("%v: %w", v, ErrKind)
}

// Subvolume opens one of a Btrfs volume's by its path from the top-level one.
func (d *Disk) Subvolume(v Volume, path string) (Tree, error) {
	r, err := btrfs.Open(d.Section(v), v.Size)
	if err != nil {
		return nil, err
	}
	return treeOf(r.Subvolume(path))
}

func treeOf[T Tree](t T, err error) (Tree, error) {
	if err != nil {
		return nil, err
	}
	return t, nil
}
