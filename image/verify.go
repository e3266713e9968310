package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/progress"
	"github.com/sealboot/sealboot/luks"
)

// Expected is what a disk is compared with; nil and "" are not compared.
type Expected struct {
	DiskUUID      string
	HeaderPin     *luks.Pin
	ContentDigest *Digest
}

// Verified is what Verify found in a disk that is in order.
type Verified struct {
	DiskUUID      string
	HeaderPin     luks.Pin
	ContentDigest Digest // of the payload as it is now: the first boot changes it
	KeySlot       int    // which the passphrase opens
	DiskSize      int64
	PayloadSize   int64
	Written       int64
	FileSystem    Checked
}

// Checked is what Verify found in the root's file system.
type Checked struct {
	FileSystem
	Files, Folders uint64
	BootVolume     bool // one stands before it, in order too
}

// Verify decrypts a disk and checks all of it: the image's structure and reference counts, both
// partition tables, both LUKS headers, the file system's metadata with their checksums, that every block in use was really
// written, and what is expected. It reads every byte once and holds some MiB. What it finds wrong
// it reports together, as far as it could go on.
//
// A wrong passphrase is luks.ErrNoKey; what differs from the expected is ErrContent.
func Verify(ctx context.Context, file io.ReaderAt, size int64, passphrase []byte, want Expected, report progress.Func) (*Verified, error) {
	d, err := Open(ctx, file, size)
	if err != nil {
		return nil, err
	}
	var problems []error
	if err := want.compareHeader(d.Header); err != nil {
		problems = append(problems, err)
	}
	if status := d.Header.Status(); status.Other != nil {
		problems = append(problems, fmt.Errorf("only the %s copy of the LUKS header is in order; the other: %w", status.Used, status.Other))
	}
	if n := d.Container.Leaked; n > 0 {
		problems = append(problems, fmt.Errorf("%d clusters of the file are counted but not used, as a program that was killed leaves them: qemu-img check -r leaks frees them", n))
	}
	slot, cipher, err := d.unlock(passphrase)
	if err != nil {
		return nil, errors.Join(append(problems, err)...)
	}
	base, payloadSize := d.payload()
	p := &plain{disk: d.image, base: base, size: payloadSize, cipher: cipher}
	found, err := scanPayload(ctx, d.image, p, report)
	if err != nil {
		return nil, fmt.Errorf("read payload: %w", err)
	}
	digest := digestOf(payloadSize, found.leaves)
	if want.ContentDigest != nil && !want.ContentDigest.Equal(digest) {
		problems = append(problems, fmt.Errorf("%w: the content digest is %s, not %s (the first boot changes it)", ErrContent, digest, *want.ContentDigest))
	}
	summary, err := checkFileSystem(ctx, p, found)
	if err != nil {
		problems = append(problems, err)
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	return &Verified{
		DiskUUID: d.Header.UUID(), HeaderPin: d.Header.Pin(), ContentDigest: digest, KeySlot: slot,
		DiskSize: d.Container.DiskSize, PayloadSize: payloadSize, Written: found.written, FileSystem: summary,
	}, nil
}

func (want Expected) compareHeader(header *luks.Header) error {
	if want.DiskUUID != "" && want.DiskUUID != header.UUID() {
		return fmt.Errorf("%w: the disk's UUID is %s, not %s: it is another disk", ErrContent, header.UUID(), want.DiskUUID)
	}
	if pin := header.Pin(); want.HeaderPin != nil && !want.HeaderPin.Equal(pin) {
		return fmt.Errorf("%w: the LUKS header's pin is %s, not %s: somebody changed how the disk is decrypted", ErrContent, pin, *want.HeaderPin)
	}
	return nil
}

// checkFileSystem checks the root, and the boot volume if there is one.
func checkFileSystem(ctx context.Context, p *plain, found *scan) (Checked, error) {
	if at := found.missing(0, blockSize); at >= 0 { // the superblock
		return Checked{}, fmt.Errorf("%w: at %d of the payload", ErrMissing, at)
	}
	bootSize, err := p.bootSize()
	if err != nil {
		return Checked{}, err
	}
	if bootSize == 0 {
		return checkExt4(ctx, p, p.size, found)
	}
	if _, err := checkExt4(ctx, io.NewSectionReader(p, 0, bootSize), bootSize, found); err != nil {
		return Checked{}, fmt.Errorf("boot volume: %w", err)
	}
	return checkForeign(ctx, p, bootSize, found)
}

// checkExt4 looks first whether the blocks in use are there at all, then at what they say.
func checkExt4(ctx context.Context, r io.ReaderAt, size int64, found *scan) (Checked, error) {
	fs, err := ext4.Open(r, size)
	if err != nil {
		return Checked{}, err
	}
	if err := found.allThere(fs, 0); err != nil {
		return Checked{}, err
	}
	summary, err := fs.Check(ctx, nil)
	if err != nil {
		return Checked{}, err
	}
	return Checked{FileSystem: factsOf(fs), Files: summary.Files, Folders: summary.Folders}, nil
}

// checkForeign does the same for the root behind a boot volume. All that its files consist of is read, but their content.
func checkForeign(ctx context.Context, p *plain, bootSize int64, found *scan) (Checked, error) {
	size := p.size - bootSize
	if at := found.missing(bootSize, blockSize); at >= 0 {
		return Checked{}, fmt.Errorf("%w: at %d of the payload", ErrMissing, at)
	}
	fs, err := openForeign(io.NewSectionReader(p, bootSize, size), size)
	if err != nil {
		return Checked{}, err
	}
	if err := found.allThere(fs, bootSize); err != nil {
		return Checked{}, err
	}
	c := Checked{FileSystem: FileSystem{Kind: fs.Kind(), Facts: fs.Facts()}, BootVolume: true}
	err = fs.Tree().Walk(ctx, func(e source.Entry, _ io.Reader) error {
		switch e.Type {
		case source.Regular:
			c.Files++
		case source.Folder:
			c.Folders++
		}
		return nil
	})
	return c, err
}

// allThere says whether all that a file system uses was written, from a place of the payload on.
func (s *scan) allThere(fs allocated, place int64) error {
	return fs.Allocated(func(off, n int64) error {
		if at := s.missing(place+off, n); at >= 0 {
			return fmt.Errorf("%w: at %d of the payload", ErrMissing, at)
		}
		return nil
	})
}
