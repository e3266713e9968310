package image

import (
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/btrfs"
	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/xfs"
)

// foreign is a file system of a root that GRUB does not read.
type foreign interface {
	allocated
	Clean() error
	Facts() fsys.Facts
	Kind() string      // as blkid and mount call it
	Tree() *fsys.Files // all files, those of other subvolumes below their names
}

// openForeign opens one, whichever it is.
func openForeign(r io.ReaderAt, size int64) (foreign, error) {
	x, err := xfs.Open(r, size)
	if err == nil {
		return xfsRoot{x}, nil
	} else if !errors.Is(err, xfs.ErrNotXFS) {
		return nil, err
	}
	b, err := btrfs.Open(r, size)
	if errors.Is(err, btrfs.ErrNotBtrfs) {
		return nil, fmt.Errorf("%w: it is neither xfs nor btrfs", ErrNotBuilt)
	} else if err != nil {
		return nil, err
	}
	top, err := b.Subvolume("/")
	if err != nil {
		return nil, err
	}
	return btrfsRoot{b, top}, nil
}

type xfsRoot struct{ *xfs.Reader }

func (xfsRoot) Kind() string        { return "xfs" }
func (x xfsRoot) Tree() *fsys.Files { return x.Files }

type btrfsRoot struct {
	*btrfs.Reader
	top *fsys.Files
}

func (btrfsRoot) Kind() string        { return "btrfs" }
func (b btrfsRoot) Tree() *fsys.Files { return b.top }
