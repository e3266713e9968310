package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/image/qcow2"
)

// TestRawDisk verifies the same disk raw: in memory, and as a file with holes.
func TestRawDisk(t *testing.T) {
	image, made := small(t)
	want, err := verify(t, image, passphrase, Expected{ContentDigest: &made.ContentDigest})
	if err != nil {
		t.Fatal(err)
	}
	disk := asRaw(t, image)
	got, err := verify(t, disk, passphrase, Expected{ContentDigest: &made.ContentDigest})
	if err != nil || got.Written != want.Written || got.DiskSize != want.DiskSize {
		t.Errorf("in memory: %+v, %v; as QCOW2 %+v", got, err, want)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := qcow2.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Allocated(func(off, n int64) error { _, err := f.WriteAt(disk[off:off+n], off); return err }); err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(int64(len(disk))); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), f, int64(len(disk)))
	if err != nil || d.Format != Raw || d.Container.Allocated >= int64(len(disk)) || d.Container.Allocated == 0 {
		t.Fatalf("as a file: %+v, %v", d, err)
	}
	if got, err := Verify(t.Context(), f, int64(len(disk)), passphrase, Expected{ContentDigest: &made.ContentDigest}, nil); err != nil || got.Written != want.Written {
		t.Errorf("as a file: %+v, %v", got, err)
	}
}

// TestHoles looks at files of holes and data.
func TestHoles(t *testing.T) {
	for name, c := range map[string]struct {
		at   []int64 // where 64 KiB are written
		size int64
		want [][2]int64
	}{
		"empty":    {nil, 0, nil},
		"one hole": {nil, 1 << 20, nil},
		"between":  {[]int64{1 << 20}, 4 << 20, [][2]int64{{1 << 20, 64 << 10}}},
		"borders":  {[]int64{0, 4<<20 - 64<<10}, 4 << 20, [][2]int64{{0, 64 << 10}, {4<<20 - 64<<10, 64 << 10}}},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, at := range c.at {
			if _, err := f.WriteAt(noise(1, 64<<10), at); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Truncate(c.size); err != nil {
			t.Fatal(err)
		}
		var got [][2]int64
		disk := &raw{f, c.size}
		if err := disk.Allocated(func(off, n int64) error { got = append(got, [2]int64{off, n}); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
		stop := errors.New("stop")
		if err := disk.Allocated(func(int64, int64) error { return stop }); len(c.want) > 0 && !errors.Is(err, stop) {
			t.Errorf("%s: stopped with %v", name, err)
		}
	}
}
