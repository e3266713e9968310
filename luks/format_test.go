package luks

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

var testPassphrase = []byte("thirty-two bytes of passphrase..")

// TestRoundTrip formats, reads back, unlocks, and encodes to the same bytes.
func TestRoundTrip(t *testing.T) {
	tried := 0
	for _, spec := range []Spec{
		{KDF: MinimalPBKDF2},
		{KDF: KDF{Type: Argon2id, Time: 1, MemoryKiB: 64, Parallel: 2}, SectorSize: 512, Label: "root", DataOffset: minDataOffset},
		{KDF: KDF{Type: PBKDF2, Hash: "sha512", Iterations: 1001}, UUID: "0f0e0d0c-0b0a-4908-8706-050403020100", DataOffset: 1 << 30},
	} {
		h, key, err := Format(spec, testPassphrase, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		image, err := h.Encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Read(bytes.NewReader(image), h.Segment().Offset)
		if err != nil {
			t.Fatal(err)
		}
		if s := got.Status(); s.Used != Primary || s.Other != nil || s.Version != 2 || s.Sequence != 1 {
			t.Errorf("status %+v", s)
		}
		if got.Segment() != h.Segment() || got.UUID() != h.UUID() || got.Label() != spec.Label || got.Pin() != h.Pin() {
			t.Error("segment, UUID, label or pin differ")
		}
		slot, opened, err := got.Unlock(testPassphrase)
		if err != nil || slot != 0 || !bytes.Equal(opened.Bytes(), key.Bytes()) {
			t.Errorf("Unlock: slot %d, %v", slot, err)
		}
		if _, opened, err := got.Unlock([]byte("wrong")); !errors.Is(err, ErrNoKey) || opened != nil {
			t.Errorf("Unlock with a wrong passphrase: %v", err)
		}
		again, err := got.Encode()
		if err != nil || !bytes.Equal(again, image) {
			t.Errorf("encoding differs after reading: %v", err)
		}
		tried++
	}
	if tried == 0 {
		t.Error("nothing tried")
	}
}

// writeDisk puts a header and some data into a file.
func writeDisk(t testing.TB, h *Header, data []byte) string {
	t.Helper()
	image, err := h.Encode()
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, h.Segment().Offset+int64(len(data)))
	copy(disk, image)
	copy(disk[h.Segment().Offset:], data)
	return writeFile(t, "disk", disk)
}

func writeFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestCryptsetupOpensOurs has cryptsetup open what Format makes.
func TestCryptsetupOpensOurs(t *testing.T) {
	cryptsetup := testtool.Program(t, "cryptsetup")
	for name, spec := range map[string]Spec{
		"minimal":  {KDF: MinimalPBKDF2, Label: "ours"},
		"argon2id": {KDF: KDF{Type: Argon2id, Time: 4, MemoryKiB: 64 << 10, Parallel: 2}, SectorSize: 512, DataOffset: minDataOffset},
		"sha512":   {KDF: KDF{Type: PBKDF2, Hash: "sha512", Iterations: 1000}},
	} {
		t.Run(name, func(t *testing.T) {
			h, key, err := Format(spec, testPassphrase, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			disk, keyFile := writeDisk(t, h, make([]byte, 1<<20)), writeFile(t, "key", testPassphrase)
			testtool.Output(t, cryptsetup, "open", "--test-passphrase", "--key-file", keyFile, disk)
			dump := testtool.Output(t, cryptsetup, "luksDump", disk)
			if !bytes.Contains([]byte(dump), []byte(h.UUID())) {
				t.Errorf("luksDump does not show the UUID %s:\n%s", h.UUID(), dump)
			}
			keyOut := filepath.Join(t.TempDir(), "volume-key")
			testtool.Output(t, cryptsetup, "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file", keyOut, "--key-file", keyFile, disk)
			if got, err := os.ReadFile(keyOut); err != nil || !bytes.Equal(got, key.Bytes()) {
				t.Errorf("cryptsetup finds another volume key: %v", err)
			}
		})
	}
}
