package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/luks"
)

func reencrypt(t testing.TB, ctx context.Context, disk []byte, r Rekeying) ([]byte, *Reencrypted, error) {
	t.Helper()
	out, err := os.Create(filepath.Join(t.TempDir(), "new"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	made, err := Reencrypt(ctx, bytes.NewReader(disk), int64(len(disk)), r, out, rand.Reader, nil)
	image, readErr := os.ReadFile(out.Name())
	if readErr != nil {
		t.Fatal(readErr)
	}
	return image, made, err
}

// TestReencrypt brings a disk, as QCOW2 and raw, to another volume key and passphrase: the plaintext is the same to the
// last bit, no block of ciphertext is, and what was free takes no room.
func TestReencrypt(t *testing.T) {
	old, result := built(t)
	recovery := newPowered(old)
	if _, err := AddKey(t.Context(), recovery, int64(len(old)), passphrase, []byte("recovery"), luks.MinimalPBKDF2, rand.Reader); err != nil {
		t.Fatal(err)
	}
	before := asRaw(t, old)
	for name, disk := range map[string][]byte{"qcow2": recovery.now, "raw": asRaw(t, recovery.now)} {
		image, made, err := reencrypt(t, t.Context(), disk, Rekeying{Passphrase: passphrase, NewPassphrase: changed, Workers: 3})
		if err != nil {
			t.Fatal(err)
		}
		if made.DiskUUID != result.DiskUUID || made.HeaderPin == result.HeaderPin || made.OldHeaderPin != result.HeaderPin ||
			made.ContentDigest != result.ContentDigest || made.Written != result.Written || made.FileSize != result.FileSize ||
			made.FileSize != int64(len(image)) || made.PartitionID != result.PartitionID || !slices.Equal(made.LeftOut, []int{1}) {
			t.Errorf("%s: made %+v of %+v", name, made, result)
		}
		v, err := verify(t, image, changed, Expected{DiskUUID: result.DiskUUID, HeaderPin: &made.HeaderPin, ContentDigest: &result.ContentDigest})
		if err != nil || v.Written != result.Written {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		for _, key := range [][]byte{passphrase, []byte("recovery")} {
			if _, err := verify(t, image, key, Expected{}); !errors.Is(err, luks.ErrNoKey) {
				t.Errorf("%s: an old passphrase: %v", name, err)
			}
		}
		after := asRaw(t, image)
		payload, compared := partitionStart+16<<20, 0
		for at := payload; at < payload+int(made.PayloadSize); at += blockSize {
			was, is := before[at:at+blockSize], after[at:at+blockSize]
			if allZero(was) != allZero(is) || !allZero(is) && bytes.Equal(was, is) {
				t.Fatalf("%s: the block at %d is as before, or was free and is not", name, at)
			}
			if !allZero(is) {
				compared++
			}
		}
		if compared < 800 {
			t.Errorf("%s: only %d blocks were compared", name, compared)
		}
		if !bytes.Equal(before[:partitionStart], after[:partitionStart]) || !bytes.Equal(before[payload+int(made.PayloadSize):], after[payload+int(made.PayloadSize):]) {
			t.Errorf("%s: another partition table", name)
		}
		inOrder(t, image, changed, result.ContentDigest)
	}
}

// TestReencryptRefuses leaves an output that is no image.
func TestReencryptRefuses(t *testing.T) {
	disk, _ := small(t)
	good := Rekeying{Passphrase: passphrase, NewPassphrase: passphrase}
	if _, _, err := reencrypt(t, t.Context(), disk, good); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		disk []byte
		r    Rekeying
		want error
	}{
		"wrong passphrase":  {t.Context(), disk, Rekeying{Passphrase: changed, NewPassphrase: changed}, luks.ErrNoKey},
		"no new passphrase": {t.Context(), disk, Rekeying{Passphrase: passphrase}, luks.ErrEmptyPassphrase},
		"interrupted":       {ended, disk, good, context.Canceled},
		"cut short":         {t.Context(), disk[:len(disk)/2], good, nil},
	} {
		image, made, err := reencrypt(t, c.ctx, c.disk, c.r)
		if err == nil || made != nil || c.want != nil && !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, made, err)
		}
		if _, err := Open(t.Context(), bytes.NewReader(image), int64(len(image))); err == nil {
			t.Errorf("%s: the output is a disk", name)
		}
	}
	full, err := os.Create(filepath.Join(t.TempDir(), "full"))
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	if _, err := full.Write([]byte("something")); err != nil {
		t.Fatal(err)
	}
	if _, err := Reencrypt(t.Context(), bytes.NewReader(disk), int64(len(disk)), good, full, rand.Reader, nil); err == nil {
		t.Error("wrote over a file")
	}
}

// TestReencryptReadFails has a device that breaks in the middle of the payload.
func TestReencryptReadFails(t *testing.T) {
	image, _ := built(t)
	disk := asRaw(t, image)
	out, err := os.Create(filepath.Join(t.TempDir(), "new"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	failing := &broken{bytes.NewReader(disk), partitionStart + 17<<20}
	if _, err := Reencrypt(t.Context(), failing, int64(len(disk)), Rekeying{Passphrase: passphrase, NewPassphrase: changed}, out, rand.Reader, nil); !errors.Is(err, errBroken) {
		t.Errorf("got %v", err)
	}
}

var errBroken = errors.New("broken device")

// broken cannot be read in one place.
type broken struct {
	io.ReaderAt
	at int64
}

func (b *broken) ReadAt(p []byte, off int64) (int, error) {
	if off <= b.at && b.at < off+int64(len(p)) {
		return 0, errBroken
	}
	return b.ReaderAt.ReadAt(p, off)
}

// BenchmarkReencrypt brings a disk of random data to another volume key. Beside it, what a copy of the same file takes.
func BenchmarkReencrypt(b *testing.B) {
	size := benchSize(b)
	dir, _ := randomFile(b, size)
	from := filepath.Join(b.TempDir(), "disk.qcow2")
	disk, err := os.Create(from)
	if err != nil {
		b.Fatal(err)
	}
	defer disk.Close()
	made, err := Build(b.Context(), Spec{Source: dir, Size: size + size/8 + 128<<20}, passphrase, disk, rand.Reader, nil)
	if err != nil {
		b.Fatal(err)
	}
	each := func(name string, work func(out *os.File) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(made.Written)
			for b.Loop() {
				out, err := os.Create(filepath.Join(b.TempDir(), "new"))
				if err != nil {
					b.Fatal(err)
				}
				if err := work(out); err != nil {
					b.Fatal(err)
				}
				out.Close()
				os.Remove(out.Name())
			}
		})
	}
	each("reencrypt", func(out *os.File) error {
		_, err := Reencrypt(b.Context(), disk, made.FileSize, Rekeying{Passphrase: passphrase, NewPassphrase: changed}, out, rand.Reader, nil)
		return err
	})
	each("copy", func(out *os.File) error {
		_, err := io.Copy(struct{ io.Writer }{out}, io.NewSectionReader(disk, 0, made.FileSize)) // no copy_file_range
		return err
	})
}
