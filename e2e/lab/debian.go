package lab

import (
	"archive/tar"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Debian is a system of Debian's, with systemd, as mmdebstrap makes it.
type Debian struct {
	Suite    string   // bookworm, trixie
	Packages []string // beside systemd's
	Kernel   string   // package file of the kernel to start with; empty: the suite's
	Upgrade  bool     // have the suite's kernel at hand in the guest, to be installed there
}

//go:embed debian-prove.sh
var debianProve []byte

const debianUnit = `[Unit]
Description=Prove to the host what runs
[Service]
ExecStart=/usr/lib/lab/prove
StandardOutput=journal
`

// Cached gives the system as a tar archive at out, from one in the folder cache that is made on first use: mmdebstrap
// takes some 40 seconds.
func (d Debian) Cached(ctx context.Context, cache, out string, secret []byte) error {
	base := filepath.Join(cache, "debian-"+d.Suite+".tar")
	if _, err := os.Stat(base); err != nil {
		fresh := base + ".new"
		defer os.Remove(fresh)
		if err := d.Make(ctx, fresh, nil); err != nil {
			return err
		}
		if err := os.Rename(fresh, base); err != nil {
			return err
		}
	}
	from, err := os.Open(base)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.Create(out)
	if err != nil {
		return err
	}
	defer to.Close()
	end, err := entriesEnd(from)
	if err != nil {
		return err
	}
	if _, err := io.Copy(to, io.NewSectionReader(from, 0, end)); err != nil {
		return err
	}
	w := tar.NewWriter(to) // of two entries of a name the later counts
	err = w.WriteHeader(&tar.Header{Name: "." + proofPath, Mode: 0o600, Size: int64(len(secret))})
	_, writing := w.Write(secret)
	return errors.Join(err, writing, w.Close(), to.Close())
}

// entriesEnd gives where the two blocks of zeros begin that end a tar archive.
func entriesEnd(f *os.File) (int64, error) {
	for r := tar.NewReader(f); ; {
		if _, err := r.Next(); err == io.EOF {
			at, err := f.Seek(0, io.SeekCurrent)
			return at - 2*512, err
		} else if err != nil {
			return 0, err
		}
	}
}

// Make has mmdebstrap make the system as a tar archive at out; it takes what the machine's apt knows, and needs no
// root where an ordinary user may have user namespaces. secret becomes the file that the guest proves to have read.
func (d Debian) Make(ctx context.Context, out string, secret []byte) error {
	dir, err := os.MkdirTemp("", "sealboot-debian-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // mmdebstrap may be another user in there
		return err
	}
	unit := filepath.Join(dir, "etc/systemd/system/lab.service")
	wanted := filepath.Join(dir, "etc/systemd/system/multi-user.target.wants")
	for _, f := range []struct {
		path string
		mode os.FileMode
		data []byte
	}{{unit, 0o644, []byte(debianUnit)}, {filepath.Join(dir, "usr/lib/lab/prove"), 0o755, debianProve}, {filepath.Join(dir, proofPath), 0o644, secret}} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(f.path), 0o755), os.WriteFile(f.path, f.data, f.mode)); err != nil {
			return err
		}
	}
	if err := errors.Join(os.Mkdir(wanted, 0o755), os.Symlink("../lab.service", filepath.Join(wanted, "lab.service"))); err != nil {
		return err
	}
	packages := append([]string{"systemd-sysv", "udev", "dbus", "kmod"}, d.Packages...)
	args := []string{"--quiet", "--format=tar", "--variant=minbase", "--aptopt=Acquire::Check-Valid-Until \"false\"",
		"--customize-hook=copy-in " + filepath.Join(dir, "etc") + " " + filepath.Join(dir, "usr") + " /"}
	if d.Kernel == "" {
		packages = append(packages, "linux-image-cloud-amd64")
	} else {
		packages = append(packages, "linux-base")
		kernel := filepath.Join(dir, "kernel.deb")
		data, err := os.ReadFile(d.Kernel)
		if err == nil {
			err = os.WriteFile(kernel, data, 0o644)
		}
		if err != nil {
			return err
		}
		args = append(args, "--customize-hook=copy-in "+kernel+" /", `--customize-hook=chroot "$1" dpkg -i /kernel.deb`, `--customize-hook=rm "$1/kernel.deb"`)
	}
	if d.Upgrade {
		args = append(args, `--customize-hook=mkdir -p "$1/var/lib/lab"`,
			`--customize-hook=chroot "$1" sh -c 'cd /var/lib/lab && apt-get download -q $(apt-cache depends linux-image-cloud-amd64 | sed -n "s/.*Depends: //p")'`)
	}
	args = append(args, "--include="+strings.Join(packages, ","), d.Suite, out)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mmdebstrap %s: %w\n%s", d.Suite, err, tail(string(said), 2000))
	}
	return nil
}
