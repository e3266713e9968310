package agent

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// kernelDisks are the block devices of the running kernel.
type kernelDisks struct{}

// Devices of the kernel's own making, which hold nothing that came from outside, and
// drives whose opening can wait for a medium.
var notDisks = []string{"ram", "loop", "zram", "dm-", "md", "nbd", "fd", "sr"}

func (kernelDisks) List() ([]string, error) {
	entries, err := os.ReadDir("/sys/class/block") // in the order of their names
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !slices.ContainsFunc(notDisks, func(prefix string) bool { return strings.HasPrefix(e.Name(), prefix) }) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (kernelDisks) Open(name string) (Disk, error) {
	// The names of sysfs have "!" for "/" (cciss!c0d0).
	f, err := os.Open("/dev/" + strings.ReplaceAll(name, "!", "/"))
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, 2)
	if err != nil {
		f.Close()
		return nil, err
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &stat); err != nil {
		f.Close()
		return nil, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		f.Close()
		return nil, fmt.Errorf("%s is no block device", f.Name())
	}
	return &blockDevice{f, size, fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))}, nil
}

type blockDevice struct {
	*os.File
	size   int64
	number string
}

func (d *blockDevice) Size() int64    { return d.size }
func (d *blockDevice) Number() string { return d.number }
