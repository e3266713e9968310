package image

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/partition"
	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// fileSystemImage makes an ext4 image with one file.
func fileSystemImage(t testing.TB, options ...string) string {
	t.Helper()
	dir := t.TempDir()
	root, image := filepath.Join(dir, "root"), filepath.Join(dir, "root.ext4")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc", "file"), noise(5, 3<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "mke2fs"), append(append([]string{"-q", "-t", "ext4", "-d", root}, options...), image, "48M")...)
	return image
}

const readable = "^orphan_file,^metadata_csum_seed"

func TestBuildFromFileSystem(t *testing.T) {
	for name, options := range map[string][]string{
		"4 KiB blocks": {"-b", "4096", "-O", readable}, "1 KiB blocks": {"-b", "1024", "-O", readable},
		"lazy tables": {"-O", readable, "-E", "lazy_itable_init=1,lazy_journal_init=1"}, "eager tables": {"-O", readable, "-E", "lazy_itable_init=0,lazy_journal_init=0"},
		"no checksums": {"-O", readable + ",^metadata_csum"}, "no journal": {"-O", readable + ",^has_journal"}, "orphan file": {"-O", "orphan_file,metadata_csum_seed"},
	} {
		t.Run(name, func(t *testing.T) {
			path := fileSystemImage(t, options...)
			image, made, err := build(t, Spec{Source: path}, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verify(t, data, passphrase, Expected{ContentDigest: &made.ContentDigest}); err != nil {
				t.Error(err)
			}
			if made.PayloadSize < 48<<20 || made.PayloadSize > 50<<20 || made.Written > 24<<20 {
				t.Errorf("made %+v", made)
			}
			d, err := Open(t.Context(), bytes.NewReader(data), int64(len(data)))
			if err != nil {
				t.Fatal(err)
			}
			// A file system as small as this has blocks of 1 KiB where nothing is said.
			if got, want := d.Header.Segment().SectorSize, map[bool]int{true: 4096, false: 512}[name == "4 KiB blocks"]; got != want {
				t.Errorf("sectors of %d bytes, want %d", got, want)
			}
			dir := filepath.Dir(image)
			raw, partition := filepath.Join(dir, "raw"), filepath.Join(dir, "partition")
			testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-O", "raw", image, raw)
			cut(t, raw, partition, partitionStart, made.DiskSize-2<<20)
			plain := decrypt(t, partition)
			testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", plain)
			if got := testtool.Output(t, testtool.Program(t, "debugfs"), "-R", "cat /etc/file", plain); got != string(noise(5, 3<<20)) {
				t.Error("the file has other content")
			}
		})
	}
}

func TestFileSystemRefused(t *testing.T) {
	_, _, err := build(t, Spec{Source: fileSystemImage(t, "-O", "inline_data")}, rand.Reader)
	var features *FeatureError
	if !errors.As(err, &features) || len(features.Features) != 1 || !strings.HasPrefix(features.Command(), "tune2fs -O ^inline_data ") {
		t.Errorf("features GRUB cannot read: %v", err)
	}
	path := fileSystemImage(t, "-O", readable)
	var size *SizeError
	if _, _, err := build(t, Spec{Source: path, Size: 64 << 20}, rand.Reader); !errors.As(err, &size) || size.Needed != 48<<20+18<<20 {
		t.Errorf("disk too small: %v", err)
	}
	if _, _, err := build(t, Spec{Source: path, Size: size.Needed}, rand.Reader); err != nil {
		t.Errorf("a disk of the size that is needed: %v", err)
	}
	if _, _, err := build(t, Spec{Source: path, AllRoot: true}, rand.Reader); !errors.Is(err, ErrSource) {
		t.Errorf("owners in an image: %v", err)
	}
	testtool.Output(t, testtool.Program(t, "debugfs"), "-w", "-R", "ssv state 0", path)
	if _, _, err := build(t, Spec{Source: path}, rand.Reader); !errors.Is(err, ext4.ErrUnclean) {
		t.Errorf("not cleanly unmounted: %v", err)
	}
}

// TestFeatureCommand runs the advice of the error, and builds.
func TestFeatureCommand(t *testing.T) {
	path := fileSystemImage(t, "-O", "casefold")
	_, _, err := build(t, Spec{Source: path}, rand.Reader)
	var features *FeatureError
	if !errors.As(err, &features) {
		t.Fatalf("got %v", err)
	}
	words := strings.Fields(features.Command())
	testtool.Output(t, testtool.Program(t, words[0]), words[1:]...)
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", path)
	if _, _, err := build(t, Spec{Source: path}, rand.Reader); err != nil {
		t.Errorf("after %q: %v", words, err)
	}
}

func TestFileSystemOfUnwrittenBlocks(t *testing.T) {
	// A hole in the image file itself reads as zeros, and must be written as such.
	path := fileSystemImage(t, "-b", "4096", "-O", readable)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(data, noise(5, 4096))
	if at < 0 {
		t.Fatal("the file's content is not found")
	}
	clear(data[at:][:1<<20])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	image, _, err := build(t, Spec{Source: path}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(image); err != nil {
		t.Fatal(err)
	}
	if _, err := verify(t, data, passphrase, Expected{}); err != nil {
		t.Error(err)
	}
}

// partitioned makes a disk with an ext4 image on its first partition, and a second partition. A line is what sfdisk
// takes for the first one.
func partitioned(t testing.TB, ext4Image, label, line string) string {
	t.Helper()
	data, err := os.ReadFile(ext4Image)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := errors.Join(os.WriteFile(path, append(make([]byte, mib), data...), 0o600), os.Truncate(path, int64(len(data))+4*mib)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(testtool.Program(t, "sfdisk"), "-q", path)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("label: %s\nstart=2048, size=%d, %s\nsize=1M, type=L\n", label, len(data)/512, line))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sfdisk: %v\n%s", err, out)
	}
	return path
}

// TestBuildFromDisk takes the root from disks of several kinds: its content is that of the file system alone.
func TestBuildFromDisk(t *testing.T) {
	bare := fileSystemImage(t, "-O", readable)
	_, want, err := build(t, Spec{Source: bare}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	gpt, mbr := partitioned(t, bare, "gpt", "type="+RootType.String()), partitioned(t, bare, "dos", "type=83")
	sources := map[string]string{"GPT": gpt, "MBR": mbr}
	for name, options := range map[string][]string{"QCOW2": nil, "compressed": {"-c"}, "version 2": {"-o", "compat=0.10"}} {
		path := filepath.Join(t.TempDir(), "source")
		testtool.Output(t, testtool.Program(t, "qemu-img"), append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, options...), gpt, path)...)
		sources[name] = path
	}
	sources["bare in QCOW2"] = filepath.Join(t.TempDir(), "source")
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-f", "raw", "-O", "qcow2", bare, sources["bare in QCOW2"])
	for name, path := range sources {
		image, made, err := build(t, Spec{Source: path}, rand.Reader)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if made.ContentDigest != want.ContentDigest || made.PayloadSize != want.PayloadSize {
			t.Errorf("%s: made %+v, want the content of %+v", name, made, want)
		}
		data, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, data, passphrase, Expected{ContentDigest: &want.ContentDigest}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, made, err := build(t, Spec{Source: mbr, RootPartition: 1}, rand.Reader); err != nil || made.ContentDigest != want.ContentDigest {
		t.Errorf("by number: %+v, %v", made, err)
	}
}

func TestDiskRefused(t *testing.T) {
	gpt := partitioned(t, fileSystemImage(t, "-O", readable), "gpt", "type="+RootType.String())
	if _, _, err := build(t, Spec{Source: gpt}, rand.Reader); err != nil {
		t.Fatalf("the good disk: %v", err)
	}
	for name, c := range map[string]struct {
		spec Spec
		want error
	}{
		"no kernel":         {Spec{Source: gpt, Kernels: []string{t.TempDir()}}, source.ErrEntry},
		"unsafe file":       {Spec{Source: gpt, Files: []File{{Path: "/../x"}}}, source.ErrPath},
		"file for a folder": {Spec{Source: gpt, Files: []File{{Path: "/etc"}}}, ext4.ErrTree},
		"owners":            {Spec{Source: gpt, AllRoot: true}, ErrSource},
		"label":             {Spec{Source: gpt, Label: "x"}, ErrSource},
		"no such":           {Spec{Source: gpt, RootPartition: 9}, disk.ErrNoRoot},
		"not a root":        {Spec{Source: gpt, RootPartition: 2}, disk.ErrNoRoot},
		"a folder's":        {Spec{Source: t.TempDir(), RootPartition: 1, Size: 64 * mib}, ErrSource},
		"negative":          {Spec{Source: gpt, RootPartition: -1}, ErrSource},
		"MBR only":          {Spec{Source: cutTo(t, gpt, 2*mib)}, partition.ErrDamaged},
		"backing file":      {Spec{Source: overlaid(t, gpt)}, qcow2.ErrUnsupported},
	} {
		if _, made, err := build(t, c.spec, rand.Reader); made != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var features *FeatureError
	path := partitioned(t, fileSystemImage(t, "-O", "inline_data"), "dos", "type=83")
	if _, _, err := build(t, Spec{Source: path, RootPartition: 1}, rand.Reader); !errors.As(err, &features) || features.Partition != 1 || !strings.Contains(err.Error(), "partition 1 of "+path) {
		t.Errorf("features GRUB cannot read: %v", err)
	}
}

func cutTo(t testing.TB, path string, size int64) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, data[:size], 0o600); err != nil {
		t.Fatal(err)
	}
	return short
}

func overlaid(t testing.TB, path string) string {
	t.Helper()
	over := filepath.Join(t.TempDir(), "over.qcow2")
	testtool.Output(t, testtool.Program(t, "qemu-img"), "create", "-q", "-f", "qcow2", "-b", path, "-F", "raw", over)
	return over
}
