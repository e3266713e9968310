package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/luks/layout"
)

// withVolumes is a disk with a boot volume and a root.
func withVolumes(t testing.TB, root string) ([]byte, *Result) {
	t.Helper()
	image, made, err := build(t, Spec{Source: root, BootSize: 64 * mib, Files: []File{{Path: "/boot/added", Content: []byte("added")}}}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return data, made
}

func TestVerifyVolumes(t *testing.T) {
	for kind, root := range map[string]string{"xfs": xfsOf(t, 32, bootFiles), "btrfs": btrfsSeed(t, "zstd")} {
		disk, made := withVolumes(t, root)
		v, err := verify(t, disk, passphrase, Expected{ContentDigest: &made.ContentDigest})
		if err != nil {
			t.Fatalf("%s: %v", kind, err)
		}
		if f := v.FileSystem; f.Kind != kind || !f.BootVolume || f.Files < 5 || f.Folders < 4 || f.Free == 0 {
			t.Errorf("%s: %+v", kind, f)
		}
		base, p := payloadIn(t, disk)
		at := bootSizeOf(t, p)
		last := int64(0) // a block of the root that is in use
		fs, err := openForeign(io.NewSectionReader(p, at, p.size-at), p.size-at)
		if err != nil {
			t.Fatal(err)
		}
		if err := fs.Allocated(func(off, n int64) error { last = off + n - blockSize; return nil }); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			at    int64
			noise bool // what a host can make of a block, instead of nothing
			want  error
			says  string
		}{
			"block of the root":           {base + at + last, false, ErrMissing, "of the payload"},
			"superblock of the root":      {base + at, false, ErrMissing, "of the payload"},
			"superblock of the volume":    {base, false, ErrMissing, "at 0 of the payload"},
			"block of the boot volume":    {base + 2*blockSize, false, ErrMissing, "boot volume"},
			"noise in the boot's label":   {base + 1024 + 0x78, true, nil, "checksum"},
			"noise in the boot's numbers": {base + 1024, true, layout.ErrDamaged, "damaged"},
		} {
			bad := bytes.Clone(disk)
			if host := hostOffset(t, bad, c.at); c.noise {
				bad[host] ^= 1
			} else {
				clear(bad[host&^(blockSize-1):][:blockSize])
			}
			if v, err := verify(t, bad, passphrase, Expected{}); v != nil || err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}

// payloadIn gives where the payload begins, and its plaintext.
func payloadIn(t testing.TB, disk []byte) (int64, *plain) {
	t.Helper()
	d, err := Open(t.Context(), bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	base, size := d.payload()
	return base, &plain{disk: d.image, base: base, size: size, cipher: cipher}
}

// TestFilesOfVolumes reads a disk as its guest would see it, before its first boot.
func TestFilesOfVolumes(t *testing.T) {
	disk, _ := withVolumes(t, xfsOf(t, 32, bootFiles))
	f, err := files(t, disk, passphrase)
	if err != nil {
		t.Fatal(err)
	}
	if f.Root.Kind != "xfs" || f.Boot == nil || f.Boot.Label != layout.Label || f.Boot.Inodes == 0 || f.Size != f.Root.Size+64*mib || f.Unclean != nil {
		t.Errorf("%+v", f)
	}
	for path, want := range map[string]string{"/etc/fstab": bootFiles["etc/fstab"], "/boot/added": "added", "/boot/vmlinuz-6.1": "kernel", "/boot/../usr/lib/os-release": "ID=test\n", "/boot/boot/boot/added": "added"} {
		if got, err := f.ReadFile(path, mib); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	seen := map[string]bool{}
	if err := f.Walk(context.Background(), func(e source.Entry, _ io.Reader) error { seen[e.Path] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if !seen["/large"] || !seen["/boot/added"] || !seen["/boot/lost+found"] {
		t.Errorf("walked %v", seen)
	}

	disk, _ = withVolumes(t, btrfsSeed(t, "lzo"))
	d, err := Open(t.Context(), bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	for subvolume, want := range map[string]string{"": "default subvolume\n", "@/inner": "inner\n", "snapshot": "default subvolume\n"} {
		f, err := d.Files(passphrase, time.Now(), subvolume)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.ReadFile("/name", mib); err != nil || string(got) != want || f.Root.Kind != "btrfs" {
			t.Errorf("subvolume %q: %q, %v", subvolume, got, err)
		}
	}
	if f, err := d.Files(passphrase, time.Now(), "none"); f != nil || !errors.Is(err, fsys.ErrNotFound) {
		t.Errorf("a subvolume that is not there: %v", err)
	}
}

// TestReencryptVolumes brings both volumes under another key.
func TestReencryptVolumes(t *testing.T) {
	disk, made := withVolumes(t, xfsOf(t, 32, bootFiles))
	data, again, err := reencrypt(t, t.Context(), disk, Rekeying{Passphrase: passphrase, NewPassphrase: changed})
	if err != nil || again.ContentDigest != made.ContentDigest {
		t.Fatalf("%+v, %v", again, err)
	}
	if v, err := verify(t, data, changed, Expected{ContentDigest: &made.ContentDigest}); err != nil || !v.FileSystem.BootVolume {
		t.Errorf("%+v, %v", v, err)
	}
}
