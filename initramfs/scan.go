package initramfs

import (
	"context"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/image/source"
)

// Kernel is one kernel of a root file system.
type Kernel struct {
	Version string // as in the names of its files and in uname -r
	Image   string // /boot/vmlinuz-VERSION
	Initrd  string // the distribution's initramfs, "" if there is none
	Modules string // folder of its modules; "" if there is none
}

// Names that distributions give to kernels and initramfs files in /boot, in the order of
// preference: Debian and Ubuntu (initrd.img-V), Fedora (initramfs-V.img), SUSE (initrd-V).
var (
	imagePrefixes = []string{"vmlinuz-", "kernel-"}
	initrdNames   = [][2]string{{"initrd.img-", ""}, {"initramfs-", ".img"}, {"initrd-", ""}}
)

// Roots of the folders of modules: the second where /lib is a symbolic link to usr/lib.
var moduleRoots = []string{"/usr/lib/modules/", "/lib/modules/"}

// Scan finds the kernels in /boot, newest first.
func Scan(ctx context.Context, src source.Source) ([]Kernel, error) {
	boot := map[string]bool{}
	folders := map[string]string{} // version: folder of modules
	err := src.Walk(ctx, func(e source.Entry, _ io.Reader) error {
		dir, name := path.Split(e.Path)
		if dir == "/boot/" && e.Type != source.Folder {
			boot[name] = true
		}
		for _, root := range moduleRoots {
			// Only folders with something in them count: a removed kernel can leave an empty one.
			if rest, ok := strings.CutPrefix(e.Path, root); ok {
				if version, _, inside := strings.Cut(rest, "/"); inside {
					folders[version] = root + version
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	found := map[string]Kernel{}
	for _, prefix := range slices.Backward(imagePrefixes) {
		for name := range boot {
			if version, ok := strings.CutPrefix(name, prefix); ok && IsVersion(version) {
				found[version] = Kernel{Version: version, Image: "/boot/" + name, Initrd: initrd(boot, version), Modules: folders[version]}
			}
		}
	}
	kernels := make([]Kernel, 0, len(found))
	for _, k := range found {
		kernels = append(kernels, k)
	}
	slices.SortFunc(kernels, func(a, b Kernel) int { return compareVersions(b.Version, a.Version) })
	return kernels, nil
}

// IsVersion tells a kernel's version from other endings, like those of backups and of
// Fedora's rescue kernel, whose modules do not go by that name.
func IsVersion(s string) bool {
	return s != "" && s[0] >= '0' && s[0] <= '9' && !strings.HasPrefix(s, "0-rescue-") &&
		!strings.HasSuffix(s, ".old") && !strings.HasSuffix(s, ".bak") && !strings.ContainsFunc(s, func(r rune) bool {
		return !strings.ContainsRune("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_+~", r)
	})
}

func initrd(boot map[string]bool, version string) string {
	for _, n := range initrdNames {
		if name := n[0] + version + n[1]; boot[name] {
			return "/boot/" + name
		}
	}
	return ""
}

// compareVersions orders versions as people read them: runs of digits by value, all else by bytes.
// "~" comes before everything, even the end (deb-version(7)): 6.1~rc2 is older than 6.1.
func compareVersions(a, b string) int {
	for a != "" || b != "" {
		na, ra := number(a)
		nb, rb := number(b)
		if na != "" && nb != "" {
			if len(na) != len(nb) {
				return len(na) - len(nb)
			}
			if c := strings.Compare(na, nb); c != 0 {
				return c
			}
			a, b = ra, rb
			continue
		}
		if c := rank(a) - rank(b); c != 0 {
			return c
		}
		a, b = a[1:], b[1:]
	}
	return 0
}

// number cuts the digits off the front, without leading zeros ("0" stays).
func number(s string) (digits, rest string) {
	end := 0
	for end < len(s) && s[end] >= '0' && s[end] <= '9' {
		end++
	}
	digits, rest = s[:end], s[end:]
	for len(digits) > 1 && digits[0] == '0' {
		digits = digits[1:]
	}
	return digits, rest
}

func rank(s string) int {
	switch {
	case s == "":
		return 0
	case s[0] == '~':
		return -1
	}
	return int(s[0]) + 1
}
