package image

import (
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/source"
)

// FindSystem says where in a disk image the root lies, what goes into it and what else the disk has. It is nil for a
// folder, an archive or a container image, and has no volume beside the root for a bare file system.
func FindSystem(spec Spec) (*disk.System, error) {
	if _, err := source.Open(spec.Source); !errors.Is(err, source.ErrExt4) && !errors.Is(err, source.ErrUnknown) {
		return nil, err
	}
	d, err := disk.Open(spec.Source)
	if err != nil {
		return nil, err
	}
	system, err := d.System(spec.RootPartition, spec.RootSubvolume)
	if err != nil {
		err = fmt.Errorf("%s: %w", spec.Source, err)
	}
	return system, errors.Join(err, d.Close())
}
