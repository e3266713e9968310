package btrfs

import (
	"testing"

	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/internal/testtool"
)

// TestRootdir compares a folder with what mkfs.btrfs made of it.
func TestRootdir(t *testing.T) {
	dir := t.TempDir()
	fsystest.Plain(t, dir, 4000)
	testtool.Output(t, testtool.Program(t, "setfattr"), "-n", "user.name", "-v", "value", dir+"/small")
	want := fsystest.List(t, fsystest.Folder(t, dir), false)
	for name, args := range map[string][]string{
		"default": nil, "mixed": {"-M"}, "large blocks": {"-n", "65536", "--csum", "xxhash"}, "shrunk": {"--shrink"},
		"old": {"-O", "^no-holes,^skinny-metadata,^extref", "-R", "^free-space-tree", "-m", "single", "-n", "4096"},
	} {
		t.Run(name, func(t *testing.T) {
			image := mkfs(t, 256<<20, append(args, "--rootdir", dir)...)
			r := open(t, image)
			fsystest.Compare(t, want, fsystest.List(t, r, false))
			fsystest.Overwrite(t, image, r.Allocated)
			fsystest.Compare(t, want, fsystest.List(t, open(t, image), false))
			testtool.Output(t, testtool.Program(t, "btrfs"), "check", "--check-data-csum", image)
		})
	}
}
