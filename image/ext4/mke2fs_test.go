package ext4

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// populated makes a folder for mke2fs -d: many names, a fragmented and an empty file, links,
// and attributes as far as an ordinary file system takes them.
func populated(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name string, content []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "many"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 700 {
		put(fmt.Sprintf("many/a-name-of-some-length-%d", i), nil)
	}
	put("large", noise(3<<20, 1))
	put("small", []byte("hello\n"))
	scattered := make([]byte, 2<<20)
	for i := 0; i < len(scattered); i += 64 << 10 {
		scattered[i] = 1
	}
	put("scattered", scattered)
	for name, target := range map[string]string{"fast": "many", "slow": strings.Repeat("s", 200)} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "small"), filepath.Join(dir, "many", "linked")); err != nil {
		t.Fatal(err)
	}
	return dir
}

// revision0 names a variant that mke2fs no longer makes by itself.
const revision0 = "revision 0"

// makers are ways of mke2fs to make a file system that the reader must read.
var makers = []struct {
	name string
	args []string
	grub string // features that GRUB cannot read
}{
	{"default", []string{"-t", "ext4", "-b", "4096"}, ""},
	{"ext2", []string{"-t", "ext2"}, ""},
	{"ext3", []string{"-t", "ext3", "-b", "1024"}, ""},
	{revision0, []string{"-I", "128", "-b", "1024", "-O", "none"}, ""},
	{"no metadata_csum", []string{"-t", "ext4", "-O", "^metadata_csum"}, ""},
	{"uninit_bg", []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg"}, ""},
	{"uninit_bg, 32 bits", []string{"-t", "ext4", "-O", "^metadata_csum,uninit_bg,^64bit"}, ""},
	{"no 64bit", []string{"-t", "ext4", "-O", "^64bit"}, ""},
	{"no flex_bg", []string{"-t", "ext4", "-O", "^flex_bg", "-b", "1024"}, ""},
	{"no extents", []string{"-t", "ext4", "-O", "^extent,^64bit"}, ""},
	{"no journal", []string{"-t", "ext4", "-O", "^has_journal"}, ""},
	{"no filetype", []string{"-t", "ext4", "-O", "^filetype"}, ""},
	{"meta_bg", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024"}, ""},
	{"meta_bg, small groups", []string{"-t", "ext4", "-O", "meta_bg,^resize_inode", "-b", "1024", "-g", "512"}, ""},
	{"sparse_super2", []string{"-t", "ext4", "-O", "sparse_super2,^resize_inode", "-b", "1024"}, ""},
	{"no sparse_super", []string{"-t", "ext4", "-O", "^sparse_super,^resize_inode", "-b", "1024"}, ""},
	{"2 KiB blocks", []string{"-t", "ext4", "-b", "2048"}, ""},
	{"64 KiB blocks", []string{"-F", "-t", "ext4", "-b", "65536", "-O", "^has_journal", "-N", "1000"}, ""},
	{"small inodes", []string{"-t", "ext4", "-I", "128"}, ""},
	{"large inodes", []string{"-t", "ext4", "-I", "1024"}, ""},
	{"small groups", []string{"-t", "ext4", "-b", "1024", "-g", "1024"}, ""},
	{"quota and project", []string{"-t", "ext4", "-O", "quota,project"}, ""},
	{"metadata_csum_seed", []string{"-t", "ext4", "-O", "metadata_csum_seed"}, ""},
	{"orphan_file", []string{"-t", "ext4", "-O", "orphan_file"}, ""},
	{"large_dir", []string{"-t", "ext4", "-O", "large_dir"}, ""},
	{"hash seed", []string{"-t", "ext4", "-b", "1024", "-E", "hash_seed=11111111-2222-3333-4444-555555555555"}, ""},
}

func TestMke2fs(t *testing.T) {
	dir := populated(t)
	mke2fs, e2fsck, grub := testtool.Program(t, "mke2fs"), testtool.Program(t, "e2fsck"), testtool.Program(t, "grub-fstest")
	for _, m := range makers {
		t.Run(m.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "ext4.img")
			args := append([]string{"-q", "-F", "-d", dir}, m.args...)
			testtool.Output(t, mke2fs, append(args, path, "24M")...)
			if m.name == revision0 {
				testtool.Output(t, testtool.Program(t, "debugfs"), "-w", "-R", "set_super_value rev_level 0", path)
			}
			repair := func(options string) { // 1.47.0 makes wrong quotas
				testtool.Output(t, "sh", "-c", `"$0" "$1" "$2" >&2 || test $? = 1`, e2fsck, options, path)
			}
			repair("-fy")
			check := func() *Reader {
				t.Helper()
				testtool.Output(t, e2fsck, "-fn", path)
				r := open(t, path)
				if _, err := r.Check(context.Background(), nil); err != nil {
					t.Fatalf("e2fsck is content, our check is not: %v", err)
				}
				return r
			}
			r := check()
			for _, name := range []string{"large", "small", "scattered"} {
				want := must(os.ReadFile(filepath.Join(dir, name)))
				if got, err := r.ReadFile("/"+name, 4<<20); err != nil || string(got) != string(want) {
					t.Errorf("%s: %d bytes, %v", name, len(got), err)
				}
			}
			if names, err := r.ReadDir("/fast"); err != nil || len(names) != 701 {
				t.Errorf("%d names, %v", len(names), err)
			}
			if got := strings.Join(r.UnreadableByGRUB(), " "); got != m.grub {
				t.Errorf("GRUB cannot read %q", got)
			}
			if got := testtool.Output(t, grub, path, "cat", "/small"); got != "hello\n" {
				t.Errorf("GRUB reads %q", got)
			}
			onlyAllocated(t, path)
			// Have e2fsck index folders, then look again.
			repair("-fyD")
			check()
		})
	}
}

// onlyAllocated overwrites what Allocated leaves out with noise: the file system must stay as clean.
func onlyAllocated(t *testing.T, path string) {
	t.Helper()
	image := must(os.ReadFile(path))
	spoiled := noise(len(image), 9)
	r := open(t, path)
	total := int64(0)
	err := r.Allocated(func(offset, length int64) error {
		if length <= 0 || offset < total {
			return fmt.Errorf("range of %d bytes at %d", length, offset)
		}
		total = offset + length
		copy(spoiled[offset:], image[offset:total])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, spoiled, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "e2fsck"), "-fn", path)
	if _, err := open(t, path).Check(context.Background(), nil); err != nil {
		t.Error(err)
	}
}

func TestUnsupported(t *testing.T) {
	mke2fs := testtool.Program(t, "mke2fs")
	for _, m := range []struct{ features, named string }{
		{"inline_data", "inline_data"}, {"bigalloc", "bigalloc"}, {"ea_inode", "ea_inode"},
		{"encrypt", "encrypt"}, {"casefold", "casefold"}, {"verity", "verity"}, {"mmp", "mmp"},
	} {
		path := filepath.Join(t.TempDir(), "ext4.img")
		testtool.Output(t, mke2fs, "-q", "-F", "-t", "ext4", "-b", "4096", "-O", m.features, path, "40M")
		image := must(os.ReadFile(path))
		_, err := Open(readerAt(image), int64(len(image)))
		var features *UnsupportedError
		if !errors.Is(err, ErrUnsupported) || !errors.As(err, &features) || !slices.Contains(features.Features, m.named) {
			t.Errorf("%s: %v", m.features, err)
		}
	}
}

func TestUnsupportedElsewhere(t *testing.T) {
	good := spoilable(t)
	image := bytes.Clone(good)
	for name, spoil := range map[string]func(s *spoiler){
		"journal on another device": func(s *spoiler) { s.super(func(b *superblock) { b.JournalInum = 0 }) },
		"bad blocks":                func(s *spoiler) { s.inode(1, func(raw []byte) { raw[0x28] = 1 }) },
		"unknown feature":           func(s *spoiler) { s.super(func(b *superblock) { b.FeatureROCompat |= 1 << 30 }) },
	} {
		copy(image, good)
		spoil(&spoiler{t, image, must(Open(readerAt(good), int64(len(good))))})
		r, err := Open(readerAt(image), int64(len(image)))
		if err == nil {
			_, err = r.Check(context.Background(), nil)
		}
		if !errors.Is(err, ErrUnsupported) || err.Error() == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
