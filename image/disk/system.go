package disk

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/btrfs"
	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/internal/guid"
)

// Partition types of the UAPI group's discoverable partitions specification, and the MBR's for EFI.
var (
	typeRoot = guid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709")
	typeBoot = guid.MustParse("bc13c2ff-59e6-4262-a352-b275fd6f7172")
	typeESP  = guid.MustParse("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
)

const typeESPMBR = 0xef // UEFI 2.10, 5.2.1

// rootLabels are what distributions call their root file system, or its partition.
var rootLabels = []string{"root", "rootfs", "cloudimg-rootfs", "/"}

// System is where an installed system lies on a disk.
type System struct {
	Root      Volume
	Subvolume *btrfs.Root // of a root in Btrfs
	Mounts    []Mount     // what is to be folded in: /boot before /boot/efi
	Others    []Volume    // all else on the disk
}

// Mount is a volume and the folder of the root where it belongs.
type Mount struct {
	Volume
	Subvolume string // path of the one of a Btrfs volume; empty: the default one
	Path      string
	Listed    bool // in the root's /etc/fstab
}

// AmbiguousError says that several volumes may be what was looked for.
type AmbiguousError struct {
	What       string // "the root file system"
	Candidates []Volume
	Advice     string
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("several may be %s: %s; %s", e.What, list(e.Candidates), e.Advice)
}

// System finds the root file system and what is mounted in it. number is the root's partition,
// where it is known, or 0. Then the root is the only partition of the type for it; or else the only
// Linux file system that is labelled so, or else the only one that has folders as a root
// has. In Btrfs the root is the named subvolume, or the one that btrfs.Root finds. What cannot be decided is an *AmbiguousError,
// or btrfs.ErrRoots.
func (d *Disk) System(number int, subvolume string) (*System, error) {
	root, err := d.root(number)
	if err != nil {
		return nil, err
	}
	if !root.FileSystem.Linux() {
		return nil, fmt.Errorf("%w: %v is to be the root, which must be ext4, xfs or btrfs", ErrNoRoot, root)
	}
	s := &System{Root: root}
	if root.FileSystem == Btrfs {
		if s.Subvolume, err = d.subvolume(root, subvolume); err != nil {
			return nil, err
		}
	} else if subvolume != "" {
		return nil, fmt.Errorf("%w: %v has no subvolumes", ErrNoRoot, root)
	}
	fstab, err := d.fstab(s)
	if err != nil {
		return nil, err
	}
	for _, find := range []func(Volume, *mountTable) (*Mount, error){d.boot, d.esp} {
		mount, err := find(root, fstab)
		if err != nil {
			return nil, err
		}
		if mount != nil && !slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.Number == mount.Number && m.Subvolume == mount.Subvolume }) {
			s.Mounts = append(s.Mounts, *mount)
		}
	}
	s.Others = d.only(func(v Volume) bool {
		return v.Number != root.Number && !slices.ContainsFunc(s.Mounts, func(m Mount) bool { return m.Number == v.Number })
	})
	return s, nil
}

// subvolume finds the one of a Btrfs root that the system is in.
func (d *Disk) subvolume(root Volume, name string) (*btrfs.Root, error) {
	f, err := btrfs.Open(d.Section(root), root.Size)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", root, err)
	}
	found, err := f.Root(name)
	switch {
	case errors.Is(err, btrfs.ErrRoots):
		return nil, fmt.Errorf("%v: %w; say which with --root-subvolume", root, err)
	case errors.Is(err, btrfs.ErrNoRoot), name != "" && errors.Is(err, fsys.ErrNotFound):
		return nil, fmt.Errorf("%w: %v: %w", ErrNoRoot, root, err)
	case err != nil:
		return nil, fmt.Errorf("%v: %w", root, err)
	}
	return found, nil
}

// BootVolume says whether GRUB, which reads ext4, has to have a volume of its own beside the root.
func (s *System) BootVolume() bool { return !s.Root.FileSystem.Ext() }

// plainPath is a subvolume's path that needs no quotes on the kernel's command line, and no escapes in a list of options.
var plainPath = regexp.MustCompile(`^[a-zA-Z0-9/@._+~-]+$`)

// KernelWords are what the kernel's command line has to have, so that the kernel finds a root that is not ext4. Of Btrfs the default
// subvolume is not named: which that is may change in the guest.
func (s *System) KernelWords() string {
	if !s.BootVolume() {
		return ""
	}
	words := "rootfstype=" + string(s.Root.FileSystem)
	switch v := s.Subvolume; {
	case v == nil || v.Default:
	case plainPath.MatchString(v.Path):
		words += " rootflags=subvol=" + strings.TrimPrefix(v.Path, "/")
	default:
		words += fmt.Sprintf(" rootflags=subvolid=%d", v.Number)
	}
	return words
}

// Tree opens the root's file system as the system sees it, without what is mounted in it.
func (s *System) Tree(d *Disk) (Tree, error) {
	if s.Subvolume != nil {
		return s.Subvolume, nil
	}
	return d.Tree(s.Root)
}

func (d *Disk) root(number int) (Volume, error) {
	if number != 0 {
		v, ok := d.volume(number)
		if !ok {
			return Volume{}, fmt.Errorf("%w: there is no partition %d, only %s", ErrNoRoot, number, list(d.Volumes))
		}
		return v, nil
	}
	if len(d.Volumes) == 1 && d.Volumes[0].Number == 0 {
		return d.Volumes[0], nil
	}
	candidates := d.only(func(v Volume) bool { return v.Type == typeRoot })
	if len(candidates) == 0 {
		candidates = d.only(func(v Volume) bool { return v.FileSystem.Linux() && v.Type != typeBoot && v.Type != typeESP })
	}
	for _, narrow := range []func(Volume) bool{
		func(v Volume) bool {
			return slices.Contains(rootLabels, strings.ToLower(v.Label)) || slices.Contains(rootLabels, strings.ToLower(v.Name))
		},
		d.mayBeRoot,
	} {
		if len(candidates) == 1 {
			break
		}
		if fewer := slices.DeleteFunc(slices.Clone(candidates), func(v Volume) bool { return !narrow(v) }); len(fewer) > 0 {
			candidates = fewer
		}
	}
	switch len(candidates) {
	case 1:
		return candidates[0], nil
	case 0:
		return Volume{}, fmt.Errorf("%w: there is %s; an LVM, RAID or encrypted volume has to be copied out of there first", ErrNoRoot, list(d.Volumes))
	}
	return Volume{}, &AmbiguousError{"the root file system", candidates, "say which with --root-partition"}
}

func (d *Disk) only(want func(Volume) bool) (found []Volume) {
	for _, v := range d.Volumes {
		if want(v) {
			found = append(found, v)
		}
	}
	return found
}

// mayBeRoot looks for the folders of a root. What cannot be read may be one.
func (d *Disk) mayBeRoot(v Volume) bool {
	if v.FileSystem == Btrfs {
		_, err := d.subvolume(v, "")
		return !errors.Is(err, btrfs.ErrNoRoot)
	}
	t, err := d.Tree(v)
	if err != nil {
		return true
	}
	names, err := t.ReadDir("/")
	return err != nil || slices.Contains(names, "etc") && (slices.Contains(names, "usr") || slices.Contains(names, "bin") || slices.Contains(names, "sbin"))
}

// boot finds what is mounted at /boot: by /etc/fstab where that can be read, or else, and where it says
// nothing, by the partition type for it; where fstab cannot be read, by a label too.
func (d *Disk) boot(root Volume, fstab *mountTable) (*Mount, error) {
	if m, err := d.mounted(root, fstab, "/boot"); m != nil || err != nil {
		return m, err
	}
	found := d.only(func(v Volume) bool { return v.Type == typeBoot && v.Number != root.Number })
	if len(found) == 0 && fstab == nil {
		found = d.only(func(v Volume) bool {
			return v.Number != root.Number && (strings.EqualFold(v.Label, "boot") || strings.EqualFold(v.Name, "boot"))
		})
	}
	return one(found, "/boot", "the file system of /boot")
}

// esp finds the EFI system partition: by /etc/fstab, or else by type.
func (d *Disk) esp(root Volume, fstab *mountTable) (*Mount, error) {
	for _, path := range []string{"/boot/efi", "/efi"} {
		if m, err := d.mounted(root, fstab, path); m != nil || err != nil {
			return m, err
		}
	}
	found := d.only(func(v Volume) bool {
		return v.Number != root.Number && v.FileSystem == FAT && (v.Type == typeESP || d.Scheme == "mbr" && v.TypeMBR == typeESPMBR)
	})
	return one(found, "/boot/efi", "the EFI system partition")
}

func one(found []Volume, path, what string) (*Mount, error) {
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &Mount{Volume: found[0], Path: path}, nil
	}
	return nil, &AmbiguousError{what, found, "name it in the root's /etc/fstab"}
}

// fstab reads the root's table of mounts, nil where it cannot be looked into.
func (d *Disk) fstab(s *System) (*mountTable, error) {
	t, err := s.Tree(d)
	if err != nil {
		return nil, nil // who reads the root says why
	}
	data, err := t.ReadFile("/etc/fstab", 1<<20)
	if errors.Is(err, fsys.ErrNotFound) {
		return &mountTable{}, nil
	} else if err != nil {
		return nil, fmt.Errorf("read /etc/fstab of %v: %w", s.Root, err)
	}
	return parseFstab(data), nil
}

// mounted gives what fstab mounts at a path.
func (d *Disk) mounted(root Volume, fstab *mountTable, path string) (*Mount, error) {
	if fstab == nil {
		return nil, nil
	}
	line, ok := fstab.at[path]
	if !ok {
		return nil, nil
	}
	spec := line.device
	found := d.only(func(v Volume) bool { return v.Named(spec) })
	switch {
	case len(found) == 1 && (found[0].Number != root.Number || root.FileSystem == Btrfs && line.subvolume != ""):
		return &Mount{found[0], line.subvolume, path, true}, nil
	case len(found) > 1:
		return nil, &AmbiguousError{fmt.Sprintf("%s, which the root's /etc/fstab mounts at %s", spec, path), found, "name it by UUID= there"}
	}
	return nil, fmt.Errorf("%w: the root's /etc/fstab mounts %s at %s, and there is only %s", ErrMount, spec, path, list(d.Volumes))
}
