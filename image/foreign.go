package image

import (
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/image/btrfs"
	"github.com/sealboot/sealboot/image/xfs"
)

// openForeign opens a file system of a root that has a boot volume, whichever it is.
func openForeign(r io.ReaderAt, size int64) (foreign, error) {
	x, err := xfs.Open(r, size)
	if err == nil {
		return x, nil
	} else if !errors.Is(err, xfs.ErrNotXFS) {
		return nil, err
	}
	b, err := btrfs.Open(r, size)
	if err == nil {
		return b, nil
	} else if errors.Is(err, btrfs.ErrNotBtrfs) {
		return nil, fmt.Errorf("neither XFS nor Btrfs: %w", ErrNotBuilt)
	}
	return nil, err
}
