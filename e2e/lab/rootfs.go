package lab

import (
	"archive/tar"
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// guestInit is what the guest runs as its init: it answers the host's nonce with a proof.
//
//go:embed guest-init.sh
var guestInit []byte

// proofPath is the file of the encrypted root that the proof is made from.
const proofPath = "/etc/sealboot-proof"

// packages of the guest's root file system, as patterns of the fetched archives' names.
var packages = []string{"base-files", "busybox-static", "linux-image-*", "linux-modules-*"}

// MakeRootFS writes a tar archive of a small Debian (or Ubuntu) root file system with the
// distribution's own kernel, from the packages that deps/deps.sh fetched, to out. secret becomes the content
// of the file that the guest proves to have read. The result is the same for the same input.
func MakeRootFS(ctx context.Context, deps, out string, secret []byte) error {
	tree := tarTree{links: map[string]string{}, seen: map[string]bool{}}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	tree.out = tar.NewWriter(f)
	found := 0
	for _, pattern := range packages {
		debs, err := filepath.Glob(filepath.Join(deps, "debs", pattern+".deb"))
		if err != nil {
			return err
		}
		for _, deb := range debs {
			found++
			if err := tree.addDeb(ctx, deb); err != nil {
				return fmt.Errorf("unpack %s: %w", deb, err)
			}
		}
	}
	if found < 3 {
		return fmt.Errorf("%s holds %d of the guest's packages: run make deps", filepath.Join(deps, "debs"), found)
	}
	for _, file := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"/sbin/init", 0o755, guestInit},
		{proofPath, 0o600, secret},
	} {
		if err := tree.add(&tar.Header{Name: file.name, Typeflag: tar.TypeReg, Mode: file.mode, Size: int64(len(file.data)),
			ModTime: time.Unix(1700000000, 0)}, bytes.NewReader(file.data)); err != nil {
			return err
		}
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/tmp"} {
		if !tree.seen[dir] {
			if err := tree.add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755, ModTime: time.Unix(1700000000, 0)}, nil); err != nil {
				return err
			}
		}
	}
	return errors.Join(tree.out.Close(), f.Close())
}

// tarTree joins archives into one, through the symbolic links of folders that the first ones made.
type tarTree struct {
	out   *tar.Writer
	links map[string]string // folder link → its target, both absolute
	seen  map[string]bool
}

func (t *tarTree) addDeb(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	cmd.Stderr = os.Stderr
	stream, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	in := tar.NewReader(stream)
	for {
		h, err := in.Next()
		if err == io.EOF {
			break
		}
		if err == nil {
			err = t.add(h, in)
		}
		if err != nil {
			return errors.Join(err, cmd.Process.Kill(), cmd.Wait())
		}
	}
	return cmd.Wait()
}

func (t *tarTree) add(h *tar.Header, content io.Reader) error {
	name := t.resolve(path.Clean("/" + h.Name))
	if h.Typeflag == tar.TypeDir && t.seen[name] || strings.HasPrefix(name, "/usr/share/doc/") {
		return nil
	}
	t.seen[name] = true
	if h.Typeflag == tar.TypeSymlink {
		target := h.Linkname
		if !path.IsAbs(target) {
			target = path.Join(path.Dir(name), target)
		}
		t.links[name] = target
	}
	h.Name = "." + name
	if h.Typeflag == tar.TypeDir {
		h.Name += "/"
	}
	h.Format = tar.FormatPAX
	if err := t.out.WriteHeader(h); err != nil {
		return err
	}
	if h.Typeflag != tar.TypeReg {
		return nil
	}
	_, err := io.Copy(t.out, content)
	return err
}

// resolve follows links of folders above name.
func (t *tarTree) resolve(name string) string {
	dir := ""
	for part := range strings.SplitSeq(strings.Trim(path.Dir(name), "/"), "/") {
		dir = path.Join("/", dir, part)
		if target, ok := t.links[dir]; ok {
			dir = target
		}
	}
	return path.Join("/", dir, path.Base(name))
}
