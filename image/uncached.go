package image

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// uncached is a file whose large writes go to the disk past the page cache (O_DIRECT, open(2)). The copy into the cache takes more
// processor time than hashing and encrypting do, workers wait for each other there, and the sync at the end waits for all of it.
// The rest goes through the cache: the kernel keeps the two in step.
type uncached struct {
	*os.File
	direct *os.File // the same file, opened once more; nil: its file system has no such writes
}

func openUncached(f *os.File) uncached {
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), unix.O_WRONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return uncached{File: f}
	}
	return uncached{f, os.NewFile(uintptr(fd), f.Name())}
}

// end closes what openUncached opened. Nothing waits there to be written.
func (f uncached) end() {
	if f.direct != nil {
		f.direct.Close()
	}
}

func (f uncached) WriteAt(p []byte, off int64) (int, error) {
	if f.direct != nil && len(p) >= pieceSize {
		// EINVAL: offset, length or memory do not suit the disk's sectors. Go's large slices begin on a page.
		if n, err := f.direct.WriteAt(p, off); !errors.Is(err, unix.EINVAL) {
			return n, err
		}
	}
	return f.File.WriteAt(p, off)
}
