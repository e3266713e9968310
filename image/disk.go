package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/gpt"
	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/luks/layout"
)

// Disk is an image taken apart as far as it goes without a passphrase.
type Disk struct {
	Format     Format
	Container  *qcow2.Summary // of a raw disk: its sizes
	Partitions []gpt.Partition
	Root       gpt.Partition // the one of RootType
	Header     *luks.Header

	image container
	size  int64 // of the image file
}

// Open reads an image file of size bytes, QCOW2 or raw, and checks its structure, both copies of its partition
// table, and the LUKS header of its root partition.
func Open(ctx context.Context, file io.ReaderAt, size int64) (*Disk, error) {
	image, format, summary, err := openContainer(ctx, file, size)
	if err != nil {
		return nil, err
	}
	table, err := gpt.Read(image, image.Size())
	if format == Raw && errors.Is(err, gpt.ErrNotGPT) {
		return nil, fmt.Errorf("neither a QCOW2 image nor a disk with partitions: %w", err)
	} else if err != nil {
		return nil, err
	}
	d := &Disk{Format: format, Container: summary, Partitions: table.Partitions, image: image, size: size}
	if d.Root, err = root(table.Partitions); err != nil {
		return nil, err
	}
	if d.Header, err = luks.Read(io.NewSectionReader(image, d.Root.Offset, d.Root.Size), d.Root.Size); err != nil {
		return nil, fmt.Errorf("partition %q: %w", d.Root.Name, err)
	}
	return d, nil
}

func root(partitions []gpt.Partition) (gpt.Partition, error) {
	var found []gpt.Partition
	for _, p := range partitions {
		if p.Type == RootType {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return gpt.Partition{}, fmt.Errorf("%w: it has %d root partitions", ErrNotBuilt, len(found))
	}
	return found[0], nil
}

// payload gives where on the disk the encrypted data lies, and its size.
func (d *Disk) payload() (base, size int64) {
	segment := d.Header.Segment()
	return d.Root.Offset + segment.Offset, segment.DataSize(d.Root.Size)
}

// unlock gives the cipher of the payload.
func (d *Disk) unlock(passphrase []byte) (slot int, cipher *luks.Cipher, err error) {
	slot, key, err := d.Header.Unlock(passphrase)
	if err != nil {
		return 0, nil, err
	}
	defer key.Wipe()
	segment := d.Header.Segment()
	cipher, err = luks.NewCipher(key, segment.SectorSize, segment.IVTweak)
	return slot, cipher, err
}

// plain reads the payload's plaintext. Several goroutines may use it.
type plain struct {
	disk       io.ReaderAt
	base, size int64
	cipher     *luks.Cipher
}

// ReadAt reads whole sectors around what is asked for.
func (p *plain) ReadAt(b []byte, off int64) (int, error) {
	if off < 0 || off > p.size {
		return 0, fmt.Errorf("read at %d of a payload of %d bytes", off, p.size)
	}
	var end error
	if int64(len(b)) > p.size-off {
		b, end = b[:p.size-off], io.EOF
	}
	sector := int64(p.cipher.SectorSize())
	from, to := off/sector*sector, (off+int64(len(b))+sector-1)/sector*sector
	sectors := b
	if from != off || to != off+int64(len(b)) {
		sectors = make([]byte, to-from)
	}
	if n, err := p.disk.ReadAt(sectors, p.base+from); n < len(sectors) {
		if err == nil || errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, err
	}
	if err := p.cipher.Decrypt(sectors, sectors, from); err != nil {
		return 0, err
	}
	if len(sectors) != len(b) {
		copy(b, sectors[off-from:])
	}
	return len(b), end
}

// bootSize gives the size of the payload's boot volume; 0: the payload is the root.
func (p *plain) bootSize() (int64, error) {
	if p.size < layout.Head {
		return 0, nil
	}
	head := make([]byte, layout.Head)
	if _, err := p.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, err
	}
	return layout.BootSize(head, p.size)
}
