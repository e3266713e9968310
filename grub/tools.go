package grub

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// Tools are the programs and files that Build uses.
type Tools struct {
	Mkimage   string // grub-mkimage
	ModuleDir string // GRUB's modules for x86_64-efi
	CC        string // gcc
}

// ErrTools is wrapped by errors of FindTools: something has to be installed.
var ErrTools = errors.New("GRUB's tools are missing")

// Where distributions put them, from the root of a file system.
var (
	mkimagePaths = []string{"usr/bin/grub-mkimage", "usr/bin/grub2-mkimage"} // Debian, Fedora
	modulePaths  = []string{"usr/lib/grub/x86_64-efi", "usr/share/grub2/x86_64-efi"}
)

// minimal is the first GRUB whose cryptomount takes a key file (-k).
var minimal = [2]int{2, 12}

// FindTools looks for GRUB's tools in each of the given folders, which are laid out as the
// root of a file system is (an unpacked package), and then in the machine's own. It takes
// the first GRUB that is new enough.
func FindTools(roots ...string) (Tools, error) {
	cc, err := exec.LookPath("gcc")
	if err != nil {
		return Tools{}, fmt.Errorf("%w: no gcc: install gcc", ErrTools)
	}
	var tooOld []string
	for _, root := range append(append([]string{}, roots...), "/") {
		mkimage, dir := firstOf(root, mkimagePaths), firstOf(root, modulePaths)
		if mkimage == "" || dir == "" {
			continue
		}
		version, err := grubVersion(dir)
		if err != nil {
			return Tools{}, err
		}
		if !newEnough(version) {
			tooOld = append(tooOld, fmt.Sprintf("; %s has version %s", dir, version))
			continue
		}
		return Tools{Mkimage: mkimage, ModuleDir: dir, CC: cc}, nil
	}
	return Tools{}, fmt.Errorf("%w: no GRUB %d.%d or newer for x86_64-efi%s: install grub-common and grub-efi-amd64-bin "+
		"(Debian 13, Ubuntu 24.04, Debian 12 backports) or grub2-efi-x64-modules (Fedora)",
		ErrTools, minimal[0], minimal[1], strings.Join(tooOld, ""))
}

func firstOf(root string, names []string) string {
	for _, name := range names {
		path := filepath.Join(root, name)
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}

// grubVersion reads the version of a folder of modules from its modinfo.sh, as in 2.12-9;
// that of the package where it is told, otherwise GRUB's own.
func grubVersion(dir string) (string, error) {
	f, err := os.Open(filepath.Join(dir, "modinfo.sh"))
	if err != nil {
		return "", fmt.Errorf("read GRUB's version: %w", err)
	}
	defer f.Close()
	found := map[string]string{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if name, value, ok := strings.Cut(lines.Text(), "="); ok {
			found[name] = strings.Trim(value, `"`)
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("read GRUB's version: %w", err)
	}
	for _, name := range []string{"grub_package_version", "grub_version"} {
		if found[name] != "" {
			return found[name], nil
		}
	}
	return "", fmt.Errorf("read GRUB's version: %s/modinfo.sh has none", dir)
}

// newEnough compares the first two numbers of a version with minimal.
func newEnough(version string) bool {
	number := func(s string) (int, string) {
		end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
		if end < 0 {
			end = len(s)
		}
		n, err := strconv.Atoi(s[:end])
		if err != nil {
			return -1, s
		}
		return n, s[end:]
	}
	major, rest := number(version)
	if major != minimal[0] || !strings.HasPrefix(rest, ".") {
		return major > minimal[0]
	}
	minor, rest := number(rest[1:])
	// 2.12~rc1 is older than 2.12.
	return minor > minimal[1] || minor == minimal[1] && !strings.HasPrefix(rest, "~")
}
