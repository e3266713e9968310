package fsys

import "strconv"

// Facts are what a file system says of itself.
type Facts struct {
	UUID       [16]byte
	Label      string
	BlockSize  int
	SectorSize int      // the largest sectors of a device that Linux mounts it on
	Size       int64    // bytes
	Free       int64    // bytes
	Features   []string // as the file system's own tools name them
}

// Feature is one bit of a field of features.
type Feature struct {
	Bit  uint
	Name string
}

// Names gives the features of bits by their names; those without one as prefix and number.
func Names(bits uint64, known []Feature, prefix string) []string {
	var list []string
	for bit := range uint(64) {
		if bits>>bit&1 == 0 {
			continue
		}
		name := prefix + " bit " + strconv.Itoa(int(bit))
		for _, f := range known {
			if f.Bit == bit {
				name = f.Name
			}
		}
		list = append(list, name)
	}
	return list
}
