package btrfs

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/sealboot/sealboot/image/fsys"
)

// Reasons why it is not known which subvolume is the root of the system.
var (
	ErrNoRoot = errors.New("no subvolume has an /etc")
	ErrRoots  = errors.New("several subvolumes may be the root")
)

// Root is the subvolume that a system lies in.
type Root struct {
	*fsys.Files
	Subvolume
	Default bool // it is mounted when no other is named
}

// Root finds the subvolume that is the root of the system: the named one; or else the default one, if it has an /etc; or else the
// only one that has; or else, since snapshots have it too, the only one of these whose own /etc/fstab mounts it at / by subvol=, as
// Debian's and openSUSE's installers write it: a snapshot's names the subvolume that it was taken of.
func (f *Reader) Root(name string) (*Root, error) {
	list, err := f.Subvolumes()
	if err != nil {
		return nil, err
	}
	number, err := f.defaultSubvolume()
	if err != nil {
		return nil, err
	}
	var found, own []Root
	for _, s := range list {
		r := Root{f.files(s.Number), s, s.Number == number}
		if name != "" {
			if s.Path == path.Clean("/"+name) {
				return &r, nil
			}
			continue
		}
		if _, err := r.ReadDir("/etc"); errors.Is(err, fsys.ErrNotFound) {
			continue
		} else if err != nil {
			return nil, fmt.Errorf("subvolume %s: %w", s.Path, err)
		}
		if r.Default {
			return &r, nil
		}
		found = append(found, r)
		table, err := r.ReadFile("/etc/fstab", 1<<20)
		if err != nil && !errors.Is(err, fsys.ErrNotFound) {
			return nil, fmt.Errorf("subvolume %s: %w", s.Path, err)
		}
		if at, ok := rootSubvolume(string(table)); ok && at == s.Path {
			own = append(own, r)
		}
	}
	switch {
	case name != "":
		return nil, fmt.Errorf("%w: subvolume %s; there is %s", fsys.ErrNotFound, name, paths(list))
	case len(found) == 0:
		return nil, fmt.Errorf("%w: there is %s", ErrNoRoot, paths(list))
	case len(found) == 1:
		return &found[0], nil
	case len(own) == 1:
		return &own[0], nil
	}
	var may []Subvolume
	for _, r := range found {
		may = append(may, r.Subvolume)
	}
	return nil, fmt.Errorf("%w: %s", ErrRoots, paths(may))
}

func paths(list []Subvolume) string {
	var all []string
	for _, s := range list {
		all = append(all, s.Path)
	}
	return strings.Join(all, ", ")
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
