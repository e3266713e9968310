package image

import "fmt"

// openFileSystem opens an ext4 image.
func openFileSystem(spec Spec) (content, error) {
	return nil, fmt.Errorf("%w: %s is an ext4 image", ErrSource, spec.Source)
}
