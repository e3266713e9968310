package btrfs

import (
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/fsys/fsystest"
)

// seeds are images in testdata, made by TestMakeSeeds with a kernel: how they were mounted and made.
var seeds = []struct {
	name, options string
	args          []string
}{
	{"plain", "compress=no", []string{"-n", "16384"}},
	{"lzo", "compress-force=lzo", []string{"-n", "4096", "--csum", "xxhash"}},
	{"zlib", "compress-force=zlib", []string{"-O", "^no-holes", "-R", "^free-space-tree", "-m", "single", "--csum", "sha256"}},
	{"zstd", "compress-force=zstd", []string{"--csum", "blake2", "-d", "dup"}},
}

func TestSeeds(t *testing.T) {
	for _, seed := range seeds {
		image, want := fsystest.Seed(t, seed.name)
		r, err := Open(image, image.Size)
		if err != nil {
			t.Fatal(err)
		}
		top, err := r.Subvolume("/")
		if err != nil {
			t.Fatal(err)
		}
		fsystest.Compare(t, want, fsystest.List(t, top, true))
		if err := r.Allocated(func(int64, int64) error { return nil }); err != nil {
			t.Errorf("%s: %v", seed.name, err)
		}
		name, err := r.ReadFile("/name", 100) // of the seed lzo the default subvolume was left alone
		if seed.name != "lzo" && (err != nil || string(name) != "default subvolume\n") || seed.name == "lzo" && err == nil {
			t.Errorf("%s: the default subvolume is not the one set: %q, %v", seed.name, name, err)
		}
		root, err := r.Root("")
		if err != nil || root.Path != "/@" || root.Default != (seed.name != "lzo") {
			t.Fatalf("%s: the root is %+v, %v", seed.name, root, err)
		}
		if name, err := root.ReadFile("/name", 100); err != nil || string(name) != "default subvolume\n" {
			t.Errorf("%s: the root is another one: %q, %v", seed.name, name, err)
		}
	}
}

// TestMakeSeeds writes testdata; SEALBOOT_MAKE_SEEDS=1 go test -run TestMakeSeeds ./image/btrfs, as root
func TestMakeSeeds(t *testing.T) {
	fsystest.Making(t)
	for _, seed := range seeds {
		image := mkfs(t, 256<<20, append(seed.args, "-L", "seed")...)
		dir, umount, ok := fsystest.Mount(t, image, seed.options)
		if !ok {
			t.Fatal("the image cannot be mounted")
		}
		fsystest.Rich(t, dir, 200, 1000) // attributes must fit in a tree block
		script := `
btrfs subvolume create @; btrfs subvolume create @/inner; echo 'default subvolume' > @/name; echo inner > @/inner/name
mkdir @/etc; printf '# a comment\nUUID=1-2 / btrfs defaults,subvol=@ 0 0\n' > @/etc/fstab
btrfs subvolume snapshot -r @ snapshot
[ $0 = lzo ] || btrfs subvolume set-default @
sync
`
		run := exec.Command("bash", "-euc", script, seed.name)
		run.Dir = dir
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		umount()
		// Subvolumes are devices of their own to a program, so that the list is what the package reads;
		// TestKernel compares all but these.
		top, err := open(t, image).Subvolume("/")
		if err != nil {
			t.Fatal(err)
		}
		list := fsystest.List(t, top, true)
		fsystest.SaveSeed(t, image, seed.name, list)
	}
}

func TestSubvolumes(t *testing.T) {
	image, _ := fsystest.Seed(t, "plain")
	r, err := Open(image, image.Size)
	if err != nil {
		t.Fatal(err)
	}
	list, err := r.Subvolumes()
	if err != nil {
		t.Fatal(err)
	}
	paths := make([]string, len(list))
	for i := range list {
		paths[i] = list[i].Path
	}
	if got := strings.Join(paths, " "); got != "/ /@ /@/inner /snapshot" {
		t.Errorf("subvolumes %s", got)
	}
	for path, want := range map[string]string{"@": "default subvolume\n", "/snapshot": "default subvolume\n", "/@/inner": "inner\n"} {
		s, err := r.Subvolume(path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := s.ReadFile("name", 100); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	snapshot, err := r.Subvolume("snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if names, err := snapshot.ReadDir("/inner"); err != nil || len(names) != 0 {
		t.Errorf("a subvolume in a snapshot has %v, %v", names, err)
	}
	for _, path := range []string{"/boot", "/none", "/snapshot/inner", "/original"} {
		if _, err := r.Subvolume(path); err == nil {
			t.Errorf("%s is a subvolume", path)
		}
	}
}

func TestNoRoot(t *testing.T) {
	dir := t.TempDir()
	fsystest.Plain(t, dir, 1)
	r := open(t, mkfs(t, 256<<20, "--rootdir", dir))
	if root, err := r.Root(""); root != nil || !errors.Is(err, ErrNoRoot) {
		t.Errorf("a file system without a system: %v", err)
	}
	if root, err := r.Root("@"); root != nil || !errors.Is(err, fsys.ErrNotFound) || !strings.Contains(err.Error(), "there is /") {
		t.Errorf("a subvolume that is not there: %v", err)
	}
	for table, want := range map[string]string{
		"UUID=1 / btrfs rw,subvol=/@rootfs,x 0 0": "/@rootfs", "/dev/a / btrfs subvol=a/b 0": "/a/b", "/dev/a /x btrfs subvol=a 0\n#b / btrfs subvol=b": "", "x / btrfs defaults": "", "x": "",
	} {
		if got, ok := rootSubvolume(table); got != want || ok != (want != "") {
			t.Errorf("%q has the root %q", table, got)
		}
	}
}

// FuzzOpen changes bytes of file systems, and mends the checksum of the superblock or tree block that they are in. Opening and
// reading must end soon and without a panic.
func FuzzOpen(f *testing.F) {
	var images []*fsystest.Image
	var good []*Reader
	for i, seed := range seeds {
		image, _ := fsystest.Seed(f, seed.name)
		r, err := Open(image, image.Size)
		if err != nil {
			f.Fatal(err)
		}
		images, good = append(images, image), append(good, r)
		f.Add(uint8(i), uint32(130), []byte{1}, uint32(600), []byte{})
		f.Add(uint8(i), uint32(20000), []byte{0xff, 0xff}, uint32(40000), []byte{0})
		f.Add(uint8(i), uint32(100000), []byte{0, 3}, uint32(200000), []byte{9})
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, change []byte, then uint32, second []byte) {
		i := int(which) % len(images)
		image := images[i].Copy()
		mend(image, good[i].super, image.Change(at, change))
		mend(image, good[i].super, image.Change(then, second))
		r, err := Open(image, image.Size)
		if err != nil {
			if r != nil {
				t.Error("a reader and an error")
			}
			return
		}
		_, _ = r.Subvolumes()
		_, _ = r.Root("")
		fsystest.Exercise(t, r, image.Size)
	})
}

// mend computes the checksum anew of the superblock or the tree block that a byte belongs to, if any.
func mend(image *fsystest.Image, s *superblock, at int64) {
	begin, size := at&^4095, int64(superSize)
	if begin != superOffset {
		size = int64(s.nodeSize)
		begin = at &^ (size - 1)
	}
	if begin+size > image.Size {
		return
	}
	b := make([]byte, size)
	if _, err := image.ReadAt(b, begin); err != nil && !errors.Is(err, io.EOF) {
		panic(err)
	}
	if begin != superOffset && [16]byte(b[32:]) != s.metaUUID {
		return
	}
	copy(b, s.sum.of(b[sumSize:]))
	if _, err := image.WriteAt(b, begin); err != nil {
		panic(err)
	}
}

var _ fsystest.Reader = (*Reader)(nil)
