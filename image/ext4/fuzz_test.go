package ext4

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// small is a file system of few blocks, which mutations hit.
func small(t testing.TB, o Options) []byte {
	files := []file{
		regular("/a", "content"), symlink("/fast", "a"), symlink("/slow", long("s", 100)), hardLink("/b", "/a"), folder("/folder"),
		regular("/folder/"+long("", 255), "x"),
	}
	files[0].Xattrs = []source.Xattr{{Name: "user.a", Value: noise(300, 1)}, {Name: "system.posix_acl_access", Value: acl}}
	image := make(memory, o.Size)
	if err := write(image, o, files); err != nil {
		t.Fatal(err)
	}
	return image
}

// FuzzOpen changes bytes of file systems. Opening, checking and reading must end soon and without a
// panic; what the check takes for good must read without an error to its end. Two seeds have no checksums, so
// that all is reached; in the others those of superblock and first descriptor are mended.
func FuzzOpen(f *testing.F) {
	var images [][]byte
	for _, name := range seeds {
		images = append(images, must(unpack("testdata/"+name+".img.gz")))
	}
	if len(images) == 0 {
		f.Fatal("no seeds")
	}
	for i := range images {
		f.Add(uint8(i), uint32(superOffset+0x20), []byte{1, 2, 3, 4}, uint32(0), []byte{})
		f.Add(uint8(i), uint32(5000), []byte{0xff, 0xff}, uint32(20000), []byte{0})
	}
	f.Fuzz(func(t *testing.T, which uint8, at uint32, change []byte, then uint32, second []byte) {
		image := bytes.Clone(images[int(which)%len(images)])
		copy(image[int(at)%len(image):], change)
		copy(image[int(then)%len(image):], second)
		super := image[superOffset : superOffset+superSize]
		if le.Uint32(super[0x64:])&roMetadataCsum != 0 {
			le.PutUint32(super[superSize-4:], superChecksum(super))
			desc := image[blockSize:][:descSize]
			le.PutUint16(desc[groupDescCsum:], groupChecksum(fsSeed([16]byte(super[0x68:])), 0, desc))
		}
		judge(t, image)
	})
}

// seeds are images in testdata, made by TestMakeSeeds.
var seeds = []string{"ours", "plain", "checksums", "ext2"}

func unpack(name string) ([]byte, error) {
	packed, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func judge(t *testing.T, image []byte) {
	r, err := Open(readerAt(image), int64(len(image)))
	if err != nil {
		if r != nil {
			t.Error("a reader and an error")
		}
		return
	}
	_ = r.Facts()
	_ = r.UnreadableByGRUB()
	summary, err := r.Check(context.Background(), nil)
	if (err == nil) != (summary != nil) {
		t.Errorf("summary %v, error %v", summary, err)
	}
	allocated := r.Allocated(func(offset, length int64) error {
		if offset < 0 || length <= 0 || offset+length > int64(len(image)) {
			t.Errorf("range of %d at %d", length, offset)
		}
		return nil
	})
	left := int64(64 << 20)
	walked := r.Walk(context.Background(), func(_ source.Entry, content io.Reader) error {
		if content == nil {
			return nil
		}
		n, err := io.Copy(io.Discard, io.LimitReader(content, left))
		if left -= n; left <= 0 {
			return io.EOF
		}
		return err
	})
	if err == nil && (allocated != nil || walked != nil && !errors.Is(walked, io.EOF)) {
		t.Errorf("checked, but allocated as %v and walked as %v", allocated, walked)
	}
}

// TestFuzzSeeds makes sure that the seeds are good images.
func TestFuzzSeeds(t *testing.T) {
	for _, name := range seeds {
		image := must(unpack("testdata/" + name + ".img.gz"))
		r, err := Open(readerAt(image), int64(len(image)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := r.Check(context.Background(), nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestMakeSeeds writes testdata/*.img.gz; SEALBOOT_MAKE_SEEDS=1 go test -run TestMakeSeeds
func TestMakeSeeds(t *testing.T) {
	if os.Getenv("SEALBOOT_MAKE_SEEDS") == "" {
		t.Skip("SEALBOOT_MAKE_SEEDS is not set")
	}
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/in", 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		if err := os.WriteFile(filepath.Join(dir, "in", long(string(rune('a'+i)), 60)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	save := func(name string, image []byte) {
		var b bytes.Buffer
		z := must(gzip.NewWriterLevel(&b, gzip.BestCompression))
		if _, err := z.Write(image); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("testdata/"+name+".img.gz", b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	save("ours", small(t, testOptions(8<<20)))
	for name, args := range map[string][]string{
		"plain":     {"-t", "ext4", "-b", "1024", "-O", "^metadata_csum,^has_journal,^resize_inode", "-N", "64", "1M"},
		"checksums": {"-t", "ext4", "-b", "4096", "-O", "^has_journal", "-N", "64", "2M"},
		"ext2":      {"-t", "ext2", "-b", "1024", "-N", "64", "1M"},
	} {
		path := dir + "/" + name
		all := append([]string{"-q", "-F", "-d", dir + "/in", "-U", "11111111-2222-3333-4444-555555555555"}, args[:len(args)-1]...)
		if out, err := exec.Command("mke2fs", append(all, path, args[len(args)-1])...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		save(name, must(os.ReadFile(path)))
	}
}
