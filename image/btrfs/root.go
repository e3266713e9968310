package btrfs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/sealboot/sealboot/image/fsys"
)

// ErrNoRoot says that no subvolume is known to be the root of a system, or more than one.
var ErrNoRoot = errors.New("no subvolume is known to be the root")

// Root gives the subvolume that is the root of the system in this file system, and its path from the top-level one. It is the default
// subvolume if that has an /etc; or else the one whose own /etc/fstab mounts it at / by subvol= (as Debian's and openSUSE's
// installers write it). A snapshot's fstab names the subvolume that it was taken of, so it is not mistaken for that.
func (f *Reader) Root() (files *fsys.Files, at string, err error) {
	list, err := f.Subvolumes()
	if err != nil {
		return nil, "", err
	}
	number, err := f.defaultSubvolume()
	if err != nil {
		return nil, "", err
	}
	var found, paths []string
	for _, s := range list {
		files := f.files(s.Number)
		if s.Number == number {
			if _, err := files.ReadDir("/etc"); err == nil {
				return files, s.Path, nil
			} else if !errors.Is(err, fsys.ErrNotFound) {
				return nil, "", err
			}
		}
		paths = append(paths, s.Path)
		table, err := files.ReadFile("/etc/fstab", 1<<20)
		if errors.Is(err, fsys.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, "", fmt.Errorf("subvolume %s: %w", s.Path, err)
		}
		if own, ok := rootSubvolume(string(table)); ok && own == s.Path {
			found = append(found, s.Path)
		}
	}
	switch len(found) {
	case 0:
		return nil, "", fmt.Errorf("%w: the default one has no /etc, and none of %s has an /etc/fstab that mounts it at /", ErrNoRoot, strings.Join(paths, ", "))
	case 1:
	default:
		return nil, "", fmt.Errorf("%w: %s all have an /etc/fstab that mounts them at /: make one the default", ErrNoRoot, strings.Join(found, ", "))
	}
	files, err = f.Subvolume(found[0])
	return files, found[0], err
}

// rootSubvolume gives the path of the subvolume that a table of mounts has at /.
func rootSubvolume(table string) (string, bool) {
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 4 || strings.HasPrefix(fields[0], "#") || fields[1] != "/" {
			continue
		}
		for option := range strings.SplitSeq(fields[3], ",") {
			if name, ok := strings.CutPrefix(option, "subvol="); ok {
				return path.Clean("/" + name), true
			}
		}
	}
	return "", false
}
