package image

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"time"

	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/luks"
)

func files(t *testing.T, disk, key []byte) (*Files, error) {
	t.Helper()
	d, err := Open(t.Context(), bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	return d.Files(key, time.Unix(1_700_000_000, 0), "")
}

// edit changes the payload's block with the superblock.
func edit(t *testing.T, disk []byte, change func(super []byte)) []byte {
	t.Helper()
	disk = bytes.Clone(disk)
	d, err := Open(t.Context(), bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	_, cipher, err := d.unlock(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	base, _ := d.payload()
	block := disk[base:][:blockSize]
	if err := cipher.Decrypt(block, block, 0); err != nil {
		t.Fatal(err)
	}
	super := block[1024:2048]
	change(super)
	// Linux, fs/ext4/super.c, ext4_superblock_csum: without the last inversion.
	binary.LittleEndian.PutUint32(super[1020:], ^crc32.Checksum(super[:1020], crc32.MakeTable(crc32.Castagnoli)))
	if err := cipher.Encrypt(block, block, 0); err != nil {
		t.Fatal(err)
	}
	return disk
}

// TestFiles reads a disk that was unmounted cleanly, one that was not, and such that cannot be read.
func TestFiles(t *testing.T) {
	image, _ := small(t)
	disk := asRaw(t, image)
	const recover = 4 // EXT4_FEATURE_INCOMPAT_RECOVER
	for name, c := range map[string]struct {
		change  func(super []byte)
		unclean bool
		replay  bool // it could not be replayed
		want    error
	}{
		"clean":         {func([]byte) {}, false, false, nil},
		"unclean":       {func(s []byte) { s[0x60] |= recover }, true, false, nil},
		"not to replay": {func(s []byte) { s[0x60] |= recover; s[0x3a] |= 2 }, true, true, nil},
		"another":       {func(s []byte) { s[0x38]++ }, false, false, ext4.ErrNotExt4},
		"unused":        {func(s []byte) { s[0x61] |= 0x80 }, false, false, nil}, // inline_data
		"unknown":       {func(s []byte) { s[0x63] |= 0x80 }, false, false, ext4.ErrUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			changed := edit(t, disk, c.change)
			f, err := files(t, changed, passphrase)
			if !errors.Is(err, c.want) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
			if c.want != nil {
				return
			}
			if (f.Unclean != nil) != c.unclean || (f.Replay != nil) != c.replay || f.Size < 8<<20 {
				t.Errorf("unclean: %v, replay: %v, %d bytes", f.Unclean, f.Replay, f.Size)
			}
			if got, err := f.ReadFile("/file", 1<<20); err != nil || !bytes.Equal(got, noise(1, 5000)) {
				t.Errorf("another content: %v", err)
			}
			if f.Replay == nil {
				if err := f.Clean(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	d, err := Open(t.Context(), bytes.NewReader(disk), int64(len(disk)))
	if err != nil {
		t.Fatal(err)
	}
	if f, err := d.Files(passphrase, time.Now(), "@"); f != nil || !errors.Is(err, fsys.ErrNotFound) {
		t.Errorf("a subvolume of ext4: %v", err)
	}
	if _, err := files(t, disk, []byte("wrong")); !errors.Is(err, luks.ErrNoKey) {
		t.Errorf("wrong passphrase: %v", err)
	}
}
