package xfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"testing"

	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/internal/testtool"
)

// seeds are images in testdata, made by TestMakeSeeds: kernel of version 5, old of version 4.
var seeds = []string{"kernel", "old"}

func TestSeeds(t *testing.T) {
	for _, name := range seeds {
		image, want := fsystest.Seed(t, name)
		r, err := Open(image, image.Size)
		if err != nil {
			t.Fatal(err)
		}
		fsystest.Compare(t, want, fsystest.List(t, r, true))
		if err := r.Allocated(func(int64, int64) error { return nil }); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMakeSeeds writes testdata; SEALBOOT_MAKE_SEEDS=1 go test -run TestMakeSeeds ./image/xfs, as root
func TestMakeSeeds(t *testing.T) {
	fsystest.Making(t)
	image := mkfs(t, 64<<20, "-i", "nrext64=1", "-m", "rmapbt=1", "-L", "seed", "-d", "agcount=2")
	dir, umount, ok := fsystest.Mount(t, image, "")
	if !ok {
		t.Fatal("the image cannot be mounted")
	}
	fsystest.Rich(t, dir, 1500, 3000)
	want := withoutOwnForm(fsystest.List(t, fsystest.Folder(t, dir), true))
	umount()
	fsystest.SaveSeed(t, image, "kernel", want)

	dir = t.TempDir()
	fsystest.Plain(t, dir, 300)
	image = mkfs(t, 24<<20, "-m", "crc=0", "-b", "size=1024", "-p", protofileOf(t, dir))
	setAttributes(t, image, false)
	fsystest.SaveSeed(t, image, "old", fsystest.List(t, open(t, image), true)) // no kernel of today mounts it; TestProtofile compares its like
}

// setAttributes gives files attributes of all forms by xfs_db. In version 4 that crashes with values that need blocks of their own.
func setAttributes(t testing.TB, image string, v5 bool) {
	db := func(args ...string) {
		testtool.Output(t, testtool.Program(t, "xfs_db"), append(append([]string{"-x"}, args...), image)...)
	}
	db("-c", "path /small", "-c", "attr_set -v 5 short", "-c", "attr_set -s -v 9 capability")
	args := []string{"-c", "path /empty"}
	for i := range 60 {
		args = append(args, "-c", fmt.Sprintf("attr_set -v %d name-%d", i*2+1, i))
	}
	db(args...)
	if v5 {
		db("-c", "path /large", "-c", "attr_set -v 5000 remote")
		db("-c", "path /large", "-c", "attr_set -r -v 60000 remote-and-trusted")
	}
}

// FuzzOpen changes bytes of file systems. Opening and reading must end soon and without a
// panic. One seed has no checksums; in the other that of the changed block is mended.
func FuzzOpen(f *testing.F) {
	var images []*fsystest.Image
	for _, name := range seeds {
		image, _ := fsystest.Seed(f, name)
		images = append(images, image)
	}
	for i := range images {
		f.Add(uint8(i), uint32(88), []byte{1}, uint32(600), []byte{})
		f.Add(uint8(i), uint32(20000), []byte{0xff, 0xff}, uint32(40000), []byte{0})
		f.Add(uint8(i), uint32(100000), []byte{0, 3}, uint32(200000), []byte{9})
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, change []byte, then uint32, second []byte) {
		image := images[int(which)%len(images)].Copy()
		mend(image, image.Change(at, change))
		mend(image, image.Change(then, second))
		r, err := Open(image, image.Size)
		if err != nil {
			if r != nil {
				t.Error("a reader and an error")
			}
			return
		}
		fsystest.Exercise(t, r, image.Size)
	})
}

func fix(b []byte, crc int) {
	clear(b[crc:][:4])
	binary.LittleEndian.PutUint32(b[crc:], crc32.Checksum(b, castagnoli))
}

// mend computes the checksum anew of what a byte belongs to, in a file system of version 5 with blocks of 4096 bytes.
func mend(image *fsystest.Image, at int64) {
	sum := func(begin, size int64, crc int) {
		b := make([]byte, size)
		if _, err := image.ReadAt(b, begin); err != nil && !errors.Is(err, io.EOF) {
			panic(err)
		}
		fix(b, crc)
		if _, err := image.WriteAt(b[crc:][:4], begin+int64(crc)); err != nil {
			panic(err)
		}
	}
	head := make([]byte, 12)
	begin := func(size int64) int64 {
		if _, err := image.ReadAt(head, at&^(size-1)); err != nil {
			panic(err)
		}
		return at &^ (size - 1)
	}
	switch start := begin(512); {
	case string(head[:4]) == "XFSB" && image.Size > 0 && at < 512:
		sum(start, 512, 224)
		return
	case string(head[:4]) == groupMagic:
		sum(start, 512, 216)
		return
	case string(head[:2]) == "IN":
		sum(start, 512, 100)
		return
	}
	start := begin(4096)
	switch string(head[:4]) {
	case freeMagicV5:
		sum(start, 4096, shortTreeHeader.crc)
	case treeMagicV5:
		sum(start, 4096, longTreeHeader.crc)
	case dataMagicV5, blockMagicV5:
		sum(start, 4096, folderHeader.crc)
	case "XARM", "XSLM":
		sum(start, 4096, valueHeader.crc)
	default:
		if magic := be.Uint16(head[8:]); magic == attrLeafV5 || magic == attrNodeV5 {
			sum(start, 4096, attrHeader.crc)
		}
	}
}

var _ fsystest.Reader = (*Reader)(nil)
