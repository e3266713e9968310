package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/gpt"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/progress"
	"github.com/sealboot/sealboot/luks"
)

// Result is what Build made.
type Result struct {
	DiskUUID      string       // of the LUKS header
	HeaderPin     luks.Pin     // of the LUKS header
	ContentDigest Digest       // of the payload's plaintext
	DiskSize      int64        // bytes of the disk
	PayloadSize   int64        // bytes of the file system
	Written       int64        // bytes of the payload that were written
	FileSize      int64        // bytes of the image file
	PartitionID   guid.GUID    // of the root partition
	Repairs       ext4.Repairs // what had to be done to a disk image's file system before something was put into it
	KernelWords   string       // what the kernel's command line has to have, as disk.System.KernelWords gives it
}

// Build makes a disk in out, which must be an empty file, or for a raw disk may be a block device, whose size
// then is the disk's. It neither syncs nor closes it, and
// after an error its content is of no use. random is [crypto/rand.Reader] but in tests; the same
// random bytes and input make the same file. report is told of the bytes taken so far; it may be nil.
func Build(ctx context.Context, spec Spec, passphrase []byte, out *os.File, random io.Reader, report progress.Func) (*Result, error) {
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	spec = spec.withDefaults()
	device, err := spec.Output.checkOut(out)
	if err != nil {
		return nil, err
	}
	scratch := filepath.Dir(out.Name())
	if device != 0 {
		if spec.Size != 0 && spec.Size != device {
			return nil, fmt.Errorf("%s has %d bytes: a disk of %d would leave its second partition table where nobody looks; leave the size out", out.Name(), device, spec.Size)
		}
		spec.Size, scratch = device, os.TempDir()
		if err := spec.Validate(); err != nil {
			return nil, err
		}
	}
	content, err := openContent(ctx, spec, scratch)
	if err != nil {
		return nil, err
	}
	defer content.close()
	// Linux mounts no file system whose blocks, or sectors, are smaller than its device's sectors.
	if content.sectorSize() < spec.LUKS.SectorSize {
		spec.LUKS.SectorSize = 512
	}
	if spec.Size, err = content.diskSize(ctx, spec); err != nil {
		return nil, err
	}
	b := &builder{spec: spec, content: content, report: report}
	return b.build(ctx, passphrase, out, random)
}

type builder struct {
	spec    Spec
	content content
	report  progress.Func
}

// content is what goes into the payload.
type content interface {
	sectorSize() int // the largest that the disk may have
	// diskSize gives the size of the disk, or a *SizeError.
	diskSize(context.Context, Spec) (int64, error)
	// write writes the file system to out, which may read from it until it is closed. report takes the bytes handed over.
	write(ctx context.Context, spec Spec, diskUUID string, out sink, size int64, report func(total int64)) error
	unchanged() error // an error if the source changed meanwhile
	close() error
}

// sink takes a file system, in any order.
type sink interface {
	io.WriterAt
	CopyAt(src io.ReaderAt, off, n int64) error // takes bytes from the same place in src
}

func (b *builder) build(ctx context.Context, passphrase []byte, file *os.File, random io.Reader) (*Result, error) {
	out := openUncached(file)
	defer out.end()
	disk, err := b.spec.Output.begin(out, b.spec.Size)
	if err != nil {
		return nil, err
	}
	header, key, err := luks.Format(b.spec.LUKS, passphrase, random)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	id, err := b.writeTables(disk, header, random)
	if err != nil {
		return nil, err
	}
	segment := header.Segment()
	cipher, err := luks.NewCipher(key, segment.SectorSize, segment.IVTweak)
	if err != nil {
		return nil, err
	}
	size := payloadSize(b.spec.Size, segment.Offset)
	digest, written, err := b.writePayload(ctx, disk, cipher, header.UUID(), partitionStart+segment.Offset, size)
	if err != nil {
		return nil, err
	}
	if err := disk.Close(); err != nil {
		return nil, err
	}
	fileSize, err := out.Seek(0, io.SeekEnd) // of a device too
	if err != nil {
		return nil, err
	}
	if err := b.spec.Output.finish(ctx, out, fileSize); err != nil {
		return nil, err
	}
	made := &Result{
		DiskUUID: header.UUID(), HeaderPin: header.Pin(), ContentDigest: digest,
		DiskSize: b.spec.Size, PayloadSize: size, Written: written, FileSize: fileSize, PartitionID: id,
	}
	switch c := b.content.(type) {
	case *fileSystem:
		made.Repairs = c.repairs
	case *volumes:
		made.KernelWords = c.words
	}
	return made, nil
}

// writeTables writes both partition tables and the LUKS header.
func (b *builder) writeTables(disk target, header *luks.Header, random io.Reader) (guid.GUID, error) {
	var ids [2]guid.GUID
	for i := range ids {
		if _, err := io.ReadFull(random, ids[i][:]); err != nil {
			return guid.GUID{}, fmt.Errorf("make identifier: %w", err)
		}
		ids[i][7], ids[i][8] = ids[i][7]&0x0f|0x40, ids[i][8]&0x3f|0x80 // RFC 9562, version 4, as GUIDs are stored
	}
	table := gpt.Table{DiskID: ids[0], Partitions: []gpt.Partition{{
		Type: RootType, ID: ids[1], Name: PartitionName,
		Offset: partitionStart, Size: (b.spec.Size-gpt.TailSize)/mib*mib - partitionStart,
	}}}
	head, tail, err := table.Encode(b.spec.Size)
	if err != nil {
		return guid.GUID{}, err
	}
	luksHeader, err := header.Encode()
	if err != nil {
		return guid.GUID{}, err
	}
	for _, part := range []struct {
		data []byte
		at   int64
	}{{head, 0}, {tail, b.spec.Size - int64(len(tail))}, {luksHeader, partitionStart}} {
		if _, err := disk.WriteAt(part.data, part.at); err != nil {
			return guid.GUID{}, fmt.Errorf("write disk: %w", err)
		}
	}
	return ids[1], nil
}

func (b *builder) writePayload(ctx context.Context, disk target, cipher *luks.Cipher, diskUUID string, base, size int64) (Digest, int64, error) {
	workers := b.spec.Workers
	if workers <= 0 {
		workers = defaultWorkers()
	}
	p := newPayload(ctx, disk, base, size, cipher, workers)
	p.fill = b.spec.Output.Fill
	err := b.content.write(ctx, b.spec, diskUUID, p, size, func(total int64) {
		if b.report != nil {
			b.report(p.taken, total)
		}
	})
	digest, written, err := p.Close(err)
	if err = errors.Join(err, b.content.unchanged()); err != nil {
		return Digest{}, 0, err
	}
	if b.report != nil {
		b.report(written, written)
	}
	return digest, written, nil
}

// writeTree makes an ext4 file system of a tree.
func writeTree(ctx context.Context, out io.WriterAt, o ext4.Options, src source.Source, report func(int64)) error {
	w, err := ext4.NewWriter(out, o)
	if err != nil {
		return err
	}
	err = src.Walk(ctx, func(e source.Entry, content io.Reader) error {
		report(0)
		return w.Add(e, content)
	})
	if err == nil {
		err = w.Close()
	}
	return err
}

// openContent recognizes the source. What is changed of a file system is kept in the folder scratch meanwhile.
func openContent(ctx context.Context, spec Spec, scratch string) (content, error) {
	src, err := source.OpenWith(spec.Source, spec.Kernels...)
	if errors.Is(err, source.ErrExt4) || errors.Is(err, source.ErrUnknown) {
		content, wrong := openFileSystem(ctx, spec, scratch)
		if errors.Is(wrong, disk.ErrNoDisk) {
			return nil, err
		}
		return content, wrong
	} else if err != nil {
		return nil, err
	}
	switch {
	case spec.RootPartition != 0:
		return nil, fmt.Errorf("%w: %s has no partitions", ErrSource, spec.Source)
	case spec.RootSubvolume != "":
		return nil, fmt.Errorf("%w: %s has no subvolumes", ErrSource, spec.Source)
	case spec.BootSize != 0:
		return nil, fmt.Errorf("%w: of %s an ext4 file system is made, which gets no boot volume", ErrSource, spec.Source)
	}
	if spec.AllRoot {
		src = source.AllRoot(src)
	}
	if len(spec.Files) > 0 {
		if src, err = source.With(src, spec.Files...); err != nil {
			return nil, err
		}
	}
	return &tree{src}, nil
}

const smallestTree = 8 * mib // the smallest file system that ext4.NewWriter makes, with a journal

// tree is a folder, an archive or a container image, for which a file system is made.
type tree struct{ src source.Source }

func (t *tree) sectorSize() int  { return 4096 } // the block size of ext4.Writer
func (t *tree) close() error     { return nil }
func (t *tree) unchanged() error { return nil } // the source looks itself, at each file

func (t *tree) diskSize(ctx context.Context, spec Spec) (int64, error) {
	if spec.Size == 0 {
		return 0, fmt.Errorf("%w: the size of the disk must be given for a folder or an archive", ErrSource)
	}
	if payloadSize(spec.Size, spec.LUKS.DataOffset) < smallestTree { // see how large it would have to be
		if err := t.write(ctx, spec, "", nowhere{}, smallestTree, func(int64) {}); err != nil {
			return 0, err
		}
		return 0, &SizeError{Size: spec.Size, Needed: diskSize(smallestTree, spec.LUKS.DataOffset)}
	}
	return spec.Size, nil
}

func (t *tree) write(ctx context.Context, spec Spec, diskUUID string, out sink, size int64, report func(int64)) error {
	uuid, hashSeed := fileSystemID(diskUUID)
	options := ext4.Options{Size: size, UUID: uuid, HashSeed: hashSeed, Label: spec.Label, Time: spec.Time}
	return sizeError(writeTree(ctx, out, options, t.src, report), spec)
}

// nowhere takes writes and keeps nothing.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nowhere) CopyAt(_ io.ReaderAt, _, _ int64) error { return nil }

// sizeError turns the file system's needs into the disk's.
func sizeError(err error, spec Spec) error {
	if small := (*ext4.SizeError)(nil); errors.As(err, &small) {
		refused := &SizeError{Size: spec.Size}
		if small.Needed > 0 {
			refused.Needed = diskSize(small.Needed, spec.LUKS.DataOffset)
		}
		return refused
	}
	return err
}
