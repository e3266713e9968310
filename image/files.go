package image

import (
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/image/ext4"
)

// Files is the file system in a disk's root partition, to be read. It is for one goroutine.
type Files struct {
	*ext4.Reader
	Size int64 // of the file system
	// Unclean says that it was not unmounted cleanly. Its journal is replayed then, in memory, unless Replay says why it
	// could not be: what changed last may be missing then.
	Unclean, Replay error
}

// Files opens the decrypted ext4 file system in the root partition, without mounting anything; the disk is never
// written. A wrong passphrase is luks.ErrNoKey; another file system ext4.ErrNotExt4. The time is for what a replay of
// the journal changes, in memory.
//
// It judges nothing as a whole, as Verify does: what is read is checked as it is read.
func (d *Disk) Files(passphrase []byte, now time.Time) (*Files, error) {
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		return nil, err
	}
	base, size := d.payload()
	p := &plain{disk: d.image, base: base, size: size, cipher: cipher}
	f := &Files{}
	f.Reader, err = ext4.Open(p, size)
	if errors.Is(err, ext4.ErrNotExt4) {
		return nil, fmt.Errorf("the root partition's file system cannot be read here: %w", err)
	}
	if err == nil {
		f.Unclean = f.Reader.Clean()
	}
	if err != nil || f.Unclean != nil {
		if err = f.replay(p, size, now, err); err != nil {
			return nil, err
		}
	}
	facts := f.Facts()
	f.Size = int64(facts.Blocks) * int64(facts.BlockSize)
	return f, nil
}

// replay brings the file system to the state of its journal's last transaction. Where the reason is not nil, it could
// not be opened otherwise: its descriptors may be right only with what is in the journal, or it has features of which no
// file makes use.
func (f *Files) replay(p *plain, size int64, now time.Time, reason error) error {
	e, err := ext4.NewEditor(p, size, ext4.EditOptions{Time: now})
	switch {
	case err != nil && reason != nil:
		return reason
	case err != nil:
		f.Replay = err
		return nil
	}
	f.Reader = e.Reader
	if done := e.Repairs(); f.Unclean == nil && (done.Transactions > 0 || done.Orphans > 0) {
		f.Unclean = ext4.ErrUnclean
	}
	return nil
}
