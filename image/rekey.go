package image

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/luks"
)

// SyncFile is an image file that is changed in place: an *os.File, which nobody else may have open.
type SyncFile = qcow2.SyncFile

// KeyChange is what a change of key slots leaves: the UUID and the pin are as before, so that a boot record holds on.
type KeyChange struct {
	KeySlot   int
	DiskUUID  string
	HeaderPin luks.Pin
}

// ChangeKey replaces the key slot that a passphrase opens by one for another passphrase, in place. Killed at any
// write, the disk opens with the old passphrase or with the new one; see luks.Disk and qcow2.InPlace.
//
// A wrong passphrase is luks.ErrNoKey. Nothing was written then.
func ChangeKey(ctx context.Context, file SyncFile, size int64, passphrase, changed []byte, kdf luks.KDF, random io.Reader) (*KeyChange, error) {
	return changeSlots(ctx, file, size, func(h *luks.Header, d luks.Disk) (int, error) {
		return h.ChangeKey(d, passphrase, changed, kdf, random)
	})
}

// AddKey puts another passphrase into a free key slot, in place, as crash-safe as ChangeKey.
func AddKey(ctx context.Context, file SyncFile, size int64, passphrase, added []byte, kdf luks.KDF, random io.Reader) (*KeyChange, error) {
	return changeSlots(ctx, file, size, func(h *luks.Header, d luks.Disk) (int, error) {
		return h.AddKey(d, passphrase, added, kdf, random)
	})
}

func changeSlots(ctx context.Context, file SyncFile, size int64, change func(*luks.Header, luks.Disk) (int, error)) (*KeyChange, error) {
	d, err := Open(ctx, file, size)
	if err != nil {
		return nil, err
	}
	area := &headerArea{disk: file, base: d.Root.Offset, size: d.Header.Segment().Offset}
	if image, ok := d.image.(*qcow2.Reader); ok {
		if area.disk, err = qcow2.NewInPlace(ctx, file, image); err != nil {
			return nil, err
		}
	}
	before := d.Header.Pin()
	slot, err := change(d.Header, area)
	if err != nil {
		return nil, err
	}
	if !before.Equal(d.Header.Pin()) {
		return nil, errors.New("the header's pin changed with its key slots")
	}
	return &KeyChange{KeySlot: slot, DiskUUID: d.Header.UUID(), HeaderPin: before}, nil
}

// headerArea is where the LUKS header lies on the disk. The data behind it is out of its reach.
type headerArea struct {
	disk       luks.Disk
	base, size int64
}

func (a *headerArea) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > a.size || int64(len(p)) > a.size-off {
		return 0, fmt.Errorf("write LUKS header: %d bytes at %d, and the data begins at %d", len(p), off, a.size)
	}
	return a.disk.WriteAt(p, a.base+off)
}

func (a *headerArea) Sync() error { return a.disk.Sync() }
