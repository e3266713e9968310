package image

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
)

var changed = []byte("another passphrase, as random as the first")

const (
	tornSector = 512
	never      = -1
)

// powered is an image file that loses power after a number of writes. Of the write that is cut some sectors still reach
// the device, and of those that were not synced all or none.
type powered struct {
	now     []byte // what a reader sees
	pending []undo // of writes that were not synced, in their order
	writes  int    // so far
	left    int    // writes until the power is lost; never: it stays
	tear    tear
}

// undo is what a write overwrote.
type undo struct {
	off    int
	before []byte
	length int // of the file
}

type tear struct {
	name    string
	reaches func(sector, sectors int) bool // which sectors of the cut write reach the device
	pending bool                           // whether writes before it that were not synced do
}

var tears = []tear{
	{"nothing", func(int, int) bool { return false }, true},
	{"nothing, and nothing that was not synced", func(int, int) bool { return false }, false},
	{"the first sector", func(i, _ int) bool { return i == 0 }, true},
	{"the last sector alone", func(i, n int) bool { return i == n-1 }, false},
	{"the first half", func(i, n int) bool { return i < n/2 }, true},
	{"every second sector", func(i, _ int) bool { return i%2 == 1 }, true},
	{"the whole write alone", func(int, int) bool { return true }, false},
}

var errPower = errors.New("power lost")

func newPowered(image []byte) *powered {
	return &powered{now: bytes.Clone(image), left: never}
}

func (p *powered) ReadAt(b []byte, off int64) (int, error) {
	return bytes.NewReader(p.now).ReadAt(b, off)
}

func (p *powered) WriteAt(b []byte, off int64) (int, error) {
	if p.left == 0 {
		p.cut(b, int(off))
		return 0, errPower
	}
	if p.left > 0 {
		p.left--
	}
	p.writes++
	p.put(b, int(off))
	return len(b), nil
}

// cut leaves on the device what the tear says.
func (p *powered) cut(b []byte, off int) {
	if !p.tear.pending {
		for _, u := range slices.Backward(p.pending) {
			copy(p.now[u.off:], u.before)
			p.now = p.now[:u.length]
		}
	}
	first, end := off/tornSector, (off+len(b)+tornSector-1)/tornSector
	for s := first; s < end; s++ {
		from, to := max(s*tornSector, off), min((s+1)*tornSector, off+len(b))
		if p.tear.reaches(s-first, end-first) {
			p.put(b[from-off:to-off], from)
		}
	}
}

func (p *powered) put(b []byte, off int) {
	u := undo{off: off, length: len(p.now)}
	if grow := off + len(b) - len(p.now); grow > 0 {
		p.now = append(p.now, make([]byte, grow)...)
	}
	u.before = bytes.Clone(p.now[off:][:len(b)])
	p.pending = append(p.pending, u)
	copy(p.now[off:], b)
}

func (p *powered) Sync() error {
	p.pending = nil
	return nil
}

// small is a disk with few clusters in its file, and the digest of its content.
func small(t testing.TB) ([]byte, *Result) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), noise(1, 5000), 0o644); err != nil {
		t.Fatal(err)
	}
	name, made, err := build(t, Spec{Source: dir, Size: 32 << 20}, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	image, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return image, made
}

// asRaw gives the disk in an image.
func asRaw(t testing.TB, image []byte) []byte {
	t.Helper()
	r, err := qcow2.Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, r.Size())
	if _, err := r.ReadAt(disk, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return disk
}

// opens says which of the two passphrases open an image whose file system can be read with them.
func opens(t testing.TB, image []byte, pin luks.Pin) (old, new bool) {
	t.Helper()
	d, err := Open(t.Context(), bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	if !d.Header.Pin().Equal(pin) {
		t.Fatal("the header's pin changed")
	}
	try := func(passphrase []byte) bool {
		_, cipher, err := d.unlock(passphrase)
		if errors.Is(err, luks.ErrNoKey) {
			return false
		} else if err != nil {
			t.Fatal(err)
		}
		base, size := d.payload()
		fs, err := ext4.Open(&plain{disk: d.image, base: base, size: size, cipher: cipher}, size)
		if err != nil {
			t.Fatal(err)
		}
		if content, err := fs.ReadFile("/file", 1<<20); err != nil || !bytes.Equal(content, noise(1, 5000)) {
			t.Fatal("another content: ", err)
		}
		return true
	}
	return try(passphrase), try(changed)
}

type keyChange func(SyncFile, int64) (*KeyChange, error)

func changeKey(t testing.TB) keyChange {
	return func(f SyncFile, size int64) (*KeyChange, error) {
		return ChangeKey(t.Context(), f, size, passphrase, changed, luks.MinimalPBKDF2, rand.Reader)
	}
}

func addKey(t testing.TB) keyChange {
	return func(f SyncFile, size int64) (*KeyChange, error) {
		return AddKey(t.Context(), f, size, passphrase, changed, luks.MinimalPBKDF2, rand.Reader)
	}
}

// TestRekeyCrash cuts the power at every write of a change of passphrase, in several ways, on QCOW2 and raw: the disk
// still opens with the old or with the new passphrase; and the same change can then be made, after which nothing is
// amiss.
func TestRekeyCrash(t *testing.T) {
	image, made := small(t)
	for name, c := range map[string]struct {
		disk []byte
		step int // each how manieth write is cut
	}{
		"qcow2": {image, 1},
		// Smaller clusters, so that more of them are given out.
		"clusters of 16 KiB": {converted(t, image, "cluster_size=16384"), 1},
		// These need more L2 tables and blocks of reference counts too.
		"clusters of 512 bytes": {converted(t, image, "cluster_size=512"), 97},
		"raw":                   {asRaw(t, image), 1},
	} {
		for kind, change := range map[string]keyChange{"change": changeKey(t), "add": addKey(t)} {
			t.Run(name+"/"+kind, func(t *testing.T) { crash(t, c.disk, made, change, kind == "add", c.step) })
		}
	}
}

func crash(t *testing.T, disk []byte, made *Result, change keyChange, adds bool, step int) {
	whole := newPowered(disk)
	done, err := change(whole, int64(len(disk)))
	if err != nil || done.DiskUUID != made.DiskUUID || done.HeaderPin != made.HeaderPin {
		t.Fatalf("%+v, %v", done, err)
	}
	if old, new := opens(t, whole.now, made.HeaderPin); old != adds || !new {
		t.Fatalf("after the change: opens with the old passphrase: %v, the new one: %v", old, new)
	}
	inOrder(t, whole.now, changed, made.ContentDigest)
	before, after := 0, 0
	for n := 0; n < whole.writes; n += step {
		for _, tear := range tears {
			where := fmt.Sprintf("write %d of %d, of which reaches the device: %s", n, whole.writes, tear.name)
			p := newPowered(disk)
			p.left, p.tear = n, tear
			if _, err := change(p, int64(len(disk))); !errors.Is(err, errPower) {
				t.Fatalf("%s: %v, want the power to be lost", where, err)
			}
			old, new := opens(t, p.now, made.HeaderPin)
			switch {
			case old && (adds || !new):
				before++
			case new && !adds:
				after++
			default:
				t.Errorf("%s: opens with the old passphrase: %v, the new one: %v", where, old, new)
			}
			if tear.name != tears[n%len(tears)].name {
				continue
			}
			again := newPowered(p.now)
			if _, err := change(again, int64(len(p.now))); old && err != nil || !old && !errors.Is(err, luks.ErrNoKey) {
				t.Errorf("%s: again: %v", where, err)
			} else if err == nil {
				inOrder(t, again.now, changed, made.ContentDigest)
			}
		}
	}
	if before == 0 || after == 0 && !adds || before+after < 30 {
		t.Errorf("%d times the old passphrase opens, %d times the new one", before, after)
	}
	t.Logf("%d writes, %d cuts", whole.writes, before+after)
}

// inOrder verifies an image, and has QEMU check that a QCOW2 image's counts are right and none are lost.
func inOrder(t *testing.T, image, key []byte, content Digest) {
	t.Helper()
	if _, err := verify(t, image, key, Expected{ContentDigest: &content}); err != nil {
		t.Errorf("not in order: %v", err)
	}
	if !bytes.HasPrefix(image, []byte("QFI\xfb")) {
		return
	}
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(testtool.Program(t, "qemu-img"), "check", "-f", "qcow2", path).CombinedOutput(); err != nil {
		t.Errorf("qemu-img check: %v: %s", err, out)
	}
}

// converted gives the same disk as qemu-img writes it.
func converted(t *testing.T, image []byte, options string) []byte {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, image, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-f", "qcow2", "-O", "qcow2", "-o", options, from, to)
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestOthersOpenRekeyed has GRUB open a disk with the changed passphrase, past a key slot that it cannot open, and
// cryptsetup with that one's.
func TestOthersOpenRekeyed(t *testing.T) {
	image, _ := small(t)
	p := newPowered(image)
	if _, err := changeKey(t)(p, int64(len(p.now))); err != nil {
		t.Fatal(err)
	}
	recovery := []byte("abcd-efgh-ijkl-mnop")
	kdf := luks.KDF{Type: luks.Argon2id, Time: 1, MemoryKiB: 1 << 10, Parallel: 1}
	if done, err := AddKey(t.Context(), p, int64(len(p.now)), changed, recovery, kdf, rand.Reader); err != nil || done.KeySlot != 1 {
		t.Fatal(done, err)
	}
	dir := t.TempDir()
	raw, partition, key := filepath.Join(dir, "raw"), filepath.Join(dir, "partition"), filepath.Join(dir, "key")
	if err := errors.Join(os.WriteFile(raw, asRaw(t, p.now), 0o600), os.WriteFile(key, recovery, 0o600)); err != nil {
		t.Fatal(err)
	}
	for passphrase, opens := range map[string]bool{string(changed): true, string(passphrase): false} {
		grub := exec.Command(testtool.Program(t, "grub-fstest"), raw, "-C", "cat", "(crypto0)/file")
		grub.Stdin = strings.NewReader(passphrase + "\n")
		if out, err := grub.CombinedOutput(); (err == nil && bytes.HasSuffix(out, noise(1, 5000))) != opens {
			t.Errorf("GRUB with %q: %.100q, %v", passphrase, out, err)
		}
	}
	cut(t, raw, partition, partitionStart, 20<<20)
	testtool.Output(t, testtool.Program(t, "cryptsetup"), "open", "--test-passphrase", "--key-file", key, partition)
}

// TestRekeyRefuses has a disk that is changed, and then such that are not and of which no byte is written.
func TestRekeyRefuses(t *testing.T) {
	image, _ := small(t)
	if _, err := changeKey(t)(newPowered(image), int64(len(image))); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		image      []byte
		passphrase []byte
		want       error
	}{
		"wrong passphrase": {image, []byte("wrong"), luks.ErrNoKey},
		"compressed":       {compressed(t, image), passphrase, nil},
		"not a disk":       {noise(1, 4096), passphrase, nil},
	} {
		p := newPowered(c.image)
		done, err := ChangeKey(t.Context(), p, int64(len(c.image)), c.passphrase, changed, luks.MinimalPBKDF2, rand.Reader)
		if err == nil || done != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, done, err)
		}
		if p.writes > 0 {
			t.Errorf("%s: something was written", name)
		}
	}
	area := &headerArea{disk: newPowered(nil), base: partitionStart, size: 16 << 20}
	for _, off := range []int64{-1, 16<<20 - 511, 16 << 20, 1 << 62} {
		if _, err := area.WriteAt(make([]byte, 512), off); err == nil {
			t.Errorf("wrote over the data, at %d", off)
		}
	}
}

func compressed(t *testing.T, image []byte) []byte {
	t.Helper()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := os.WriteFile(from, image, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-c", "-f", "qcow2", "-O", "qcow2", from, to)
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
