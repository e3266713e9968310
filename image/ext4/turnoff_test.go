package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// TestTurnOff has features that nothing makes use of, and files within inodes.
func TestTurnOff(t *testing.T) {
	dir := populated(t)
	for i := range 20 {
		if err := os.MkdirAll(filepath.Join(dir, "few", fmt.Sprint(i)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "few", fmt.Sprintf("file-%d", i)), noise(10*i, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	plain := made(t, dir, "24M", "-t", "ext4", "-b", "1024")
	want := walked(t, must(Open(readerAt(plain), int64(len(plain)))))
	for _, features := range []string{"inline_data", "ea_inode", "encrypt", "casefold", "verity", "mmp", "inline_data,ea_inode,mmp"} {
		for _, size := range []string{"1024", "4096"} {
			t.Run(features+" "+size, func(t *testing.T) {
				if features == "verity" && size == "1024" {
					t.Skip("mke2fs wants larger blocks for it")
				}
				image := made(t, dir, "24M", "-t", "ext4", "-b", size, "-O", features)
				e := edit(t, image)
				if got := e.Repairs().TurnedOff; len(got) != len(strings.Split(features, ",")) || !slices.Contains(got, strings.Split(features, ",")[0]) {
					t.Errorf("turned off %v", got)
				}
				put(t, e, regular("/boot/new", "new"))
				path, _ := edited(t, e, len(image))
				if size == "1024" {
					out := testtool.Output(t, testtool.Program(t, "dumpe2fs"), "-h", "-o", "superblock=8193", "-o", "blocksize=1024", path)
					for _, feature := range strings.Split(features, ",") {
						if !strings.Contains(out, "extent") || strings.Contains(out, " "+feature) {
							t.Errorf("the superblock's copy has features of before:\n%s", out)
						}
					}
				}
				onlyAllocated(t, path)
				got := walked(t, e.Reader)
				if string(got["/boot/new"].content) != "new" {
					t.Error("/boot/new is missing")
				}
				delete(got, "/boot/new")
				delete(got, "/boot")
				count := 0
				for path, w := range want {
					g, ok := got[path]
					if path == "/scattered" && strings.Contains(features, "inline_data") {
						w.content = w.content[:g.Size] // mke2fs 1.47.0 leaves a hole at the end off
					}
					if !ok || !bytes.Equal(g.content, w.content) || g.Mode != w.Mode || g.Link != w.Link || g.Type != w.Type {
						t.Errorf("%s is %+v, not %+v", path, g.Entry, w.Entry)
					}
					count++
				}
				if count < 700 || len(got) != count {
					t.Errorf("%d files, not %d", len(got), count)
				}
			})
		}
	}
}

// TestTurnOffRefused has features that files make use of, or that are not turned off.
func TestTurnOffRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, flag := range map[string]uint32{"encrypt": inodeEncrypted, "verity": inodeVerity, "ea_inode": inodeEAInode, "casefold": inodeCasefold, "bigalloc": 0, "quota": 0} {
		image := made(t, dir, "24M", "-t", "ext4", "-b", "4096", "-O", name)
		if flag != 0 {
			image = debugfsWrite(t, image, fmt.Sprintf("sif /file flags %#x", flag|inodeExtents))
		}
		_, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime})
		var features *UnsupportedError
		if !errors.As(err, &features) || !slices.Equal(features.Features, []string{name}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	image := made(t, dir, "24M", "-t", "ext4", "-O", "mmp")
	super := must(decodeSuperblock(image[superOffset:][:superSize]))
	put32(image, int(super.MMPBlock)*(1024<<super.LogBlockSize)+4, 7)
	if _, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime}); !errors.Is(err, ErrUnclean) {
		t.Errorf("mmp: %v", err)
	}
}

// TestEditFlagged refuses to change a file of a kind that the file system has no feature for.
func TestEditFlagged(t *testing.T) {
	image := made(t, populated(t), "24M", "-t", "ext4")
	image = debugfsWrite(t, image, fmt.Sprintf("sif /large flags %#x", inodeVerity|inodeExtents))
	e := edit(t, image)
	if err := e.Put(source.Entry{Path: "/large", Type: source.Regular}, nil); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}
