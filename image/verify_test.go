package image

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/gpt"
	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
)

// built is a disk of the archive, made once for the tests that spoil copies of it.
func built(t testing.TB) ([]byte, *Result) {
	t.Helper()
	image, result, err := build(t, Spec{Source: archive(t), Size: 64 << 20}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return data, result
}

func verify(t testing.TB, image []byte, key []byte, want Expected) (*Verified, error) {
	t.Helper()
	return Verify(t.Context(), bytes.NewReader(image), int64(len(image)), key, want, nil)
}

func TestVerify(t *testing.T) {
	image, made := built(t)
	v, err := verify(t, image, passphrase, Expected{DiskUUID: made.DiskUUID, HeaderPin: &made.HeaderPin, ContentDigest: &made.ContentDigest})
	if err != nil {
		t.Fatal(err)
	}
	if v.ContentDigest != made.ContentDigest || v.HeaderPin != made.HeaderPin || v.Written != made.Written || v.PayloadSize != made.PayloadSize || v.DiskSize != 64<<20 {
		t.Errorf("verified %+v, made %+v", v, made)
	}
	if v.FileSystem.Files != 3 || v.KeySlot != 0 {
		t.Errorf("%+v", v.FileSystem)
	}
}

// TestVerifyInOtherContainers: what qemu-img makes of a disk has the same content.
func TestVerifyInOtherContainers(t *testing.T) {
	qemuImg := testtool.Program(t, "qemu-img")
	image, made, err := build(t, Spec{Source: archive(t), Size: 64 << 20}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, cluster := range []string{"512", "4k", "2M"} {
		other := filepath.Join(t.TempDir(), "other.qcow2")
		testtool.Output(t, qemuImg, "convert", "-f", "qcow2", "-O", "qcow2", "-o", "cluster_size="+cluster, image, other)
		data, err := os.ReadFile(other)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := verify(t, data, passphrase, Expected{HeaderPin: &made.HeaderPin, ContentDigest: &made.ContentDigest}); err != nil {
			t.Errorf("clusters of %s: %v", cluster, err)
		}
	}
}

// hostOffset gives where in an image file a byte of the disk lies.
func hostOffset(t *testing.T, image []byte, at int64) int {
	t.Helper()
	r, err := qcow2.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	// Spoil the byte through every cluster until the disk shows it.
	var before, after [1]byte
	if _, err := r.ReadAt(before[:], at); err != nil {
		t.Fatal(err)
	}
	for host := int(at % r.ClusterSize()); host < len(image); host += int(r.ClusterSize()) {
		image[host] ^= 0xff
		_, err := r.ReadAt(after[:], at)
		image[host] ^= 0xff
		if err == nil && after[0] == before[0]^0xff {
			return host
		}
	}
	t.Fatalf("byte %d of the disk has no place", at)
	return 0
}

func TestVerifyRefuses(t *testing.T) {
	image, made := built(t)
	if _, err := verify(t, image, passphrase, Expected{ContentDigest: &made.ContentDigest}); err != nil {
		t.Fatalf("the good disk: %v", err)
	}
	const payload = partitionStart + 16<<20
	flip := func(at int64) func([]byte) { return func(b []byte) { b[hostOffset(t, b, at)] ^= 1 } }
	content := int64(-1) // some block with the content of /bin/ping
	{
		p, r := reader(t, image)
		buf := make([]byte, blockSize)
		for at := int64(0); at < p.size && content < 0; at += blockSize {
			if _, err := p.ReadAt(buf, at); err == nil && bytes.Equal(buf, noise(10, blockSize)) {
				content = payload + at
			}
		}
		_ = r
	}
	if content < 0 {
		t.Fatal("the content of /bin/ping is not found")
	}
	other := made.HeaderPin
	other[0] ^= 1
	var brokenImage *qcow2.FormatError
	var brokenFS *ext4.FormatError
	is := func(want error) func(error) bool { return func(err error) bool { return errors.Is(err, want) } }
	as := func(target any) func(error) bool { return func(err error) bool { return errors.As(err, target) } }
	for name, c := range map[string]struct {
		spoil func([]byte)
		cut   int
		key   string
		want  Expected
		is    func(error) bool
	}{
		"wrong passphrase":   {key: "wrong", is: is(luks.ErrNoKey)},
		"other disk":         {want: Expected{DiskUUID: "11111111-2222-4333-8444-555555555555"}, is: is(ErrContent)},
		"other header":       {want: Expected{HeaderPin: &other}, is: is(ErrContent)},
		"other content":      {want: Expected{ContentDigest: &Digest{}}, is: is(ErrContent)},
		"one bit of content": {spoil: flip(content), want: Expected{ContentDigest: &made.ContentDigest}, is: is(ErrContent)},
		"superblock":         {spoil: flip(payload + 1024 + 0x20), is: func(err error) bool { return errors.As(err, &brokenFS) || errors.Is(err, ext4.ErrNotExt4) }},
		"group descriptors":  {spoil: flip(payload + blockSize + 4), is: as(&brokenFS)},
		"partition table":    {spoil: flip(512 + 16), is: is(gpt.ErrDamaged)},
		"its copy":           {spoil: flip(64<<20 - 100 - 512), is: is(gpt.ErrDamaged)},
		"first LUKS header":  {spoil: flip(partitionStart + 5000), is: is(luks.ErrChecksum)},
		"second LUKS header": {spoil: flip(partitionStart + 16384 + 5000), is: is(luks.ErrChecksum)},
		"LUKS header copies": {spoil: func(b []byte) { flip(partitionStart + 5000)(b); flip(partitionStart + 16384 + 5000)(b) }, is: is(luks.ErrDamaged)},
		"hole in content":    {spoil: func(b []byte) { at := hostOffset(t, b, content); clear(b[at:][:blockSize]) }, is: is(ErrMissing)},
		"hole in superblock": {spoil: func(b []byte) { at := hostOffset(t, b, payload); clear(b[at:][:blockSize]) }, is: is(ErrMissing)},
		"truncated":          {cut: 1 << 20, is: as(&brokenImage)},
		"not an image":       {spoil: func(b []byte) { b[0]++ }, is: is(gpt.ErrNotGPT)},
	} {
		t.Run(name, func(t *testing.T) {
			b, key := bytes.Clone(image), passphrase
			if c.spoil != nil {
				c.spoil(b)
			}
			if c.key != "" {
				key = []byte(c.key)
			}
			v, err := verify(t, b[:len(b)-c.cut], key, c.want)
			if v != nil || err == nil || !c.is(err) {
				t.Errorf("got %+v, %v", v, err)
			}
		})
	}
}

// TestOpenRefusesOtherDisks opens whole images that no build of ours made.
func TestOpenRefusesOtherDisks(t *testing.T) {
	part := gpt.Partition{Type: RootType, ID: RootType, Offset: 1 << 20, Size: 1 << 20}
	second := part
	second.Offset = 2 << 20
	for name, c := range map[string]struct {
		partitions []gpt.Partition
		want       error
	}{
		"no root partition":   {nil, ErrNotBuilt},
		"two root partitions": {[]gpt.Partition{part, second}, ErrNotBuilt},
		"no LUKS header":      {[]gpt.Partition{part}, luks.ErrNotLUKS},
	} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		w, err := qcow2.NewWriter(f, 8<<20)
		if err != nil {
			t.Fatal(err)
		}
		head, tail, err := gpt.Table{DiskID: RootType, Partitions: c.partitions}.Encode(8 << 20)
		if err != nil {
			t.Fatal(err)
		}
		_, headErr := w.WriteAt(head, 0)
		_, tailErr := w.WriteAt(tail, 8<<20-gpt.TailSize)
		if err := errors.Join(headErr, tailErr, w.Close()); err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if d, err := Open(t.Context(), f, info.Size()); d != nil || !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// reader gives the plaintext of an image's payload.
func reader(t *testing.T, image []byte) (*plain, *Disk) {
	t.Helper()
	d, err := Open(t.Context(), bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	base, size := d.payload()
	return &plain{disk: d.image, base: base, size: size, cipher: cipher}, d
}

// TestPlainReadsAnywhere reads ranges that are no whole sectors.
func TestPlainReadsAnywhere(t *testing.T) {
	image, _ := built(t)
	p, _ := reader(t, image)
	whole := make([]byte, 3*blockSize)
	if _, err := p.ReadAt(whole, 0); err != nil {
		t.Fatal(err)
	}
	for _, r := range [][2]int{{0, 1}, {1, 4095}, {4095, 2}, {4096, 4096}, {1024, 8192}, {7, 0}} {
		b := make([]byte, r[1])
		if n, err := p.ReadAt(b, int64(r[0])); n != len(b) || err != nil || !bytes.Equal(b, whole[r[0]:][:r[1]]) {
			t.Errorf("%d bytes at %d: %d, %v", r[1], r[0], n, err)
		}
	}
	b := make([]byte, 10)
	if n, err := p.ReadAt(b, p.size-4); n != 4 || !errors.Is(err, io.EOF) {
		t.Errorf("over the end: %d, %v", n, err)
	}
	if _, err := p.ReadAt(b, p.size+1); err == nil {
		t.Error("read beyond the end")
	}
}
