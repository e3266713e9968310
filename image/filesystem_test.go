package image

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/ext4"
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
	if _, _, err := build(t, Spec{Source: path, Files: []File{{Path: "/x"}}}, rand.Reader); !errors.Is(err, ErrSource) {
		t.Errorf("files for an image: %v", err)
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
