// Package image makes encrypted disks and checks them: a tree of files, or the root file system of a disk image (ext4, XFS or
// Btrfs, block for block), becomes GPT + LUKS2 + a file system in a QCOW2 image, without root, loop devices or device-mapper.
//
// Everything streams: the file system is laid out while its source is read, its blocks are
// encrypted by several goroutines, and only blocks that the file system uses are written. Memory is
// bounded (some 40 MiB, and the names and inodes of a tree) whatever the size of the disk.
//
// On the disk there is one partition, from 1 MiB to the last whole MiB before the second
// partition table. In it stand the LUKS2 header and, from LUKS's data offset on, the payload: the encrypted
// file system, which has a boot volume before it where GRUB does not read it (volumes, luks/layout). Nothing of the payload that was not written has a place in the image, and what has
// none is never relied upon.
//
// A finished disk, QCOW2 or raw, is read by Open, changed in place by ChangeKey and AddKey, and written anew with another volume
// key by Reencrypt. Disk.Files reads its files without mounting anything.
//
// The content digest (Digest) names the payload's plaintext as it was built, whatever
// the container, the key and the passphrase: Verify computes it again.
package image

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealboot/sealboot/image/gpt"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/luks/layout"
)

// RootType is the partition type "Linux root on x86-64" (UAPI group, discoverable partitions specification).
var RootType = guid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")

const (
	// PartitionName is the name of the one partition.
	PartitionName = "sealboot-root"

	mib            = 1 << 20
	partitionStart = mib
)

// File is a regular file that is added to a tree; it belongs to root.
type File = source.File

// Spec says what disk to make.
type Spec struct {
	Source string // path of a folder, a tar archive, a container image, a disk image or a file system's image
	Size   int64  // of the disk, in bytes; 0 for a disk or file system image: just enough
	// LUKS's zero values are package luks's defaults, but KDF's is luks.MinimalPBKDF2, which GRUB 2.12 opens. Sectors are
	// of 512 bytes where a file system that is taken as it is has blocks below SectorSize.
	LUKS  luks.Spec
	Files []File // added to the root
	// Kernels are paths of Debian packages, folders and archives whose kernels are added to the root.
	Kernels []string
	// RootPartition is the number of a disk image's partition with the root; 0: find it.
	RootPartition int
	RootSubvolume string // path of the one with the root, in Btrfs; empty: find it
	// BootSize is the size of the boot volume that a root in XFS or Btrfs gets; 0: what it holds, twice, and at least 1 GiB.
	BootSize int64
	// AllRoot gives every entry to root; not in a disk or file system image.
	AllRoot bool
	Label   string // of the ext4 file system that is made; at most 16 bytes

	// Time is when the file system was made, for entries without a time of their own too. The
	// zero Time means the beginning of 1970, so that equal input makes equal content.
	Time   time.Time
	Output Output // what the image file is like
	// Workers encrypt at the same time. 0 is two for each processor, 16 at most.
	Workers int
}

// Errors that callers tell apart.
var (
	ErrNotBuilt = errors.New("not a disk that sealboot builds") // no root partition, or several
	ErrContent  = errors.New("content differs")                 // from a digest or pin that was given
	ErrMissing  = errors.New("a block of the file system was never written")
	ErrSource   = errors.New("source does not suit")
)

// SizeError says that what is to be stored does not fit the disk.
type SizeError struct {
	Size   int64 // bytes of the disk that were asked for
	Needed int64 // bytes of the disk in which it would fit; 0: not known
}

func (e *SizeError) Error() string {
	if e.Needed == 0 {
		return fmt.Sprintf("a disk of %d bytes is too small", e.Size)
	}
	return fmt.Sprintf("a disk of %d bytes is too small: it takes %d (%d MiB)", e.Size, e.Needed, (e.Needed+mib-1)/mib)
}

// FeatureError says that an ext4 image has features that GRUB 2.12 cannot read, or that nobody
// here can judge.
type FeatureError struct {
	Features  []string // as tune2fs and dumpe2fs name them
	Image     string   // path of the ext4 or disk image
	Partition int      // of the disk image; 0: the image is an ext4 file system and nothing else
}

func (e *FeatureError) Error() string {
	if e.Partition != 0 {
		return fmt.Sprintf("partition %d of %s has features that cannot be booted from: %s; turn them off there with tune2fs (and e2fsck -f), or, where tune2fs cannot, give a folder or a tar archive",
			e.Partition, e.Image, strings.Join(e.Features, ", "))
	}
	return fmt.Sprintf("%s has features that cannot be booted from: %s; turn them off with %s (and e2fsck -f), or, where tune2fs cannot, give a folder or a tar archive",
		e.Image, strings.Join(e.Features, ", "), e.Command())
}

// Command is the call that turns the features off in an ext4 image.
func (e *FeatureError) Command() string {
	return "tune2fs -O ^" + strings.Join(e.Features, ",^") + " " + e.Image
}

// Validate says what is wrong with the Spec, without looking at the source.
func (s Spec) Validate() error {
	s = s.withDefaults()
	if s.Source == "" {
		return fmt.Errorf("%w: none is named", ErrSource)
	}
	if s.RootPartition < 0 {
		return fmt.Errorf("%w: there is no partition %d", ErrSource, s.RootPartition)
	}
	if s.BootSize < 0 || s.BootSize%bootUnit != 0 {
		return fmt.Errorf("a boot volume of %d bytes: want a multiple of %d MiB", s.BootSize, bootUnit/mib)
	}
	if s.Label == layout.Label {
		return fmt.Errorf("%w: the label %s is for boot volumes", ErrSource, s.Label)
	}
	if s.Size < 0 || s.Size%gpt.SectorSize != 0 {
		return fmt.Errorf("a disk of %d bytes: want a multiple of %d", s.Size, gpt.SectorSize)
	}
	if err := s.Output.Validate(); err != nil {
		return err
	}
	if err := s.LUKS.Validate(); err != nil {
		return fmt.Errorf("LUKS: %w", err)
	}
	if s.LUKS.DataOffset%pieceSize != 0 {
		return fmt.Errorf("LUKS data offset %d: want a multiple of %d", s.LUKS.DataOffset, pieceSize)
	}
	if s.Size != 0 && payloadSize(s.Size, s.LUKS.DataOffset) < mib {
		return &SizeError{Size: s.Size, Needed: diskSize(mib, s.LUKS.DataOffset)}
	}
	return nil
}

func (s Spec) withDefaults() Spec {
	if s.LUKS.KDF == (luks.KDF{}) {
		s.LUKS.KDF = luks.MinimalPBKDF2
	}
	if s.LUKS.DataOffset == 0 {
		s.LUKS.DataOffset = 16 * mib
	}
	if s.LUKS.SectorSize == 0 {
		s.LUKS.SectorSize = 4096
	}
	if s.Time.IsZero() {
		s.Time = time.Unix(0, 0)
	}
	return s
}

// payloadSize gives the room for the file system on a disk.
func payloadSize(disk, dataOffset int64) int64 {
	return (disk-gpt.TailSize)/mib*mib - partitionStart - dataOffset
}

// diskSize gives the size of the disk that has room for a payload.
func diskSize(payload, dataOffset int64) int64 {
	end := partitionStart + dataOffset + payload
	return (end+mib-1)/mib*mib + mib
}

// fileSystemID derives the UUID and the hash seed of the file system from the disk's UUID, so
// that the same source on a disk of the same UUID has the same content digest. The UUID
// is of version 8 (RFC 9562).
func fileSystemID(diskUUID string) (uuid, hashSeed [16]byte) {
	sum := sha256.Sum256([]byte("sealboot ext4 identity 1\n" + diskUUID))
	uuid, hashSeed = [16]byte(sum[:16]), [16]byte(sum[16:])
	uuid[6], uuid[8] = uuid[6]&0x0f|0x80, uuid[8]&0x3f|0x80
	return uuid, hashSeed
}
