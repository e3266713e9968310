package luks

import (
	"bytes"
	"crypto"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"os"
	"path/filepath"
	"testing"

	anatol "github.com/anatol/luks.go"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestOpensCryptsetups opens what cryptsetup makes: two slots in each header, of one kind each.
func TestOpensCryptsetups(t *testing.T) {
	cryptsetup := testtool.Program(t, "cryptsetup")
	pbkdf2 := []string{"--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"}
	argon2 := func(kind string) []string {
		return []string{"--pbkdf", kind, "--pbkdf-force-iterations", "4", "--pbkdf-memory", "1024", "--pbkdf-parallel", "2"}
	}
	join := func(lists ...[]string) (all []string) {
		for _, l := range lists {
			all = append(all, l...)
		}
		return all
	}
	second := []byte("the second passphrase")
	for name, test := range map[string]struct{ format, add []string }{
		"LUKS1":             {join([]string{"--type", "luks1"}, pbkdf2[2:]), pbkdf2[2:]},
		"LUKS1 sha512":      {join([]string{"--type", "luks1", "--hash", "sha512"}, pbkdf2[2:]), pbkdf2[2:]},
		"LUKS1 sha1 AES128": {join([]string{"--type", "luks1", "--hash", "sha1", "--key-size", "256"}, pbkdf2[2:]), pbkdf2[2:]},
		"pbkdf2, argon2id":  {join([]string{"--type", "luks2"}, pbkdf2), argon2("argon2id")},
		"argon2i, pbkdf2":   {join([]string{"--type", "luks2", "--sector-size", "512"}, argon2("argon2i")), join(pbkdf2, []string{"--hash", "sha512"})},
		"argon2id, argon2i": {join([]string{"--type", "luks2", "--luks2-metadata-size", "64k", "--luks2-keyslots-size", "1m", "--label", "x", "--subsystem", "y"},
			argon2("argon2id")), argon2("argon2i")},
	} {
		t.Run(name, func(t *testing.T) {
			disk := writeFile(t, "disk", nil)
			if err := os.Truncate(disk, 20<<20); err != nil {
				t.Fatal(err)
			}
			key1, key2 := writeFile(t, "key1", testPassphrase), writeFile(t, "key2", second)
			testtool.Output(t, cryptsetup, join([]string{"luksFormat", "-q", "--key-file", key1}, test.format, []string{disk})...)
			testtool.Output(t, cryptsetup, join([]string{"luksAddKey", "-q", "--key-file", key1}, test.add, []string{disk, key2})...)
			h := readFile(t, disk)
			for want, passphrase := range [][]byte{testPassphrase, second} {
				slot, key, err := h.Unlock(passphrase)
				if err != nil || slot != want {
					t.Fatalf("slot %d, %v; want slot %d", slot, err, want)
				}
				sameKey(t, disk, slot, passphrase, key)
			}
			if h.Status().Other != nil {
				t.Errorf("status %+v", h.Status())
			}
		})
	}
}

func readFile(t testing.TB, path string) *Header {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	h, err := Read(f, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// sameKey has anatol/luks.go open the slot and compares volume keys, by a MAC under them, and
// what it says of the data.
func sameKey(t *testing.T, disk string, slot int, passphrase []byte, key *VolumeKey) {
	t.Helper()
	device, err := anatol.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	volume, err := device.UnsealVolume(slot, passphrase)
	if err != nil {
		t.Fatalf("anatol/luks.go: %v", err)
	}
	got, err := volume.HMAC(crypto.SHA256, []byte("message"))
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, key.Bytes())
	mac.Write([]byte("message"))
	if !hmac.Equal(got, mac.Sum(nil)) {
		t.Error("anatol/luks.go finds another volume key")
	}
	h := readFile(t, disk)
	s := h.Segment()
	if volume.UUID != h.UUID() || volume.StorageEncryption != s.Cipher || volume.StorageIvTweak != s.IVTweak ||
		volume.StorageSectorSize != uint64(s.SectorSize) || volume.StorageOffset != uint64(s.Offset) {
		t.Errorf("anatol/luks.go says %+v, we say %+v", volume, s)
	}
}

// TestAnatolOpensOurs has a third reader open what Format makes.
func TestAnatolOpensOurs(t *testing.T) {
	for _, kdf := range []KDF{MinimalPBKDF2, {Type: Argon2id, Time: 1, MemoryKiB: 1024, Parallel: 2}} {
		h, key, err := Format(Spec{KDF: kdf}, testPassphrase, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		sameKey(t, writeDisk(t, h, make([]byte, 1<<20)), 0, testPassphrase, key)
	}
}

// TestData decrypts data that other programs encrypted, and encrypts it to the same bytes.
func TestData(t *testing.T) {
	plain := make([]byte, 2<<20)
	rand.Read(plain)
	key := writeFile(t, "key", testPassphrase)
	for name, encrypt := range map[string]func(t *testing.T) string{
		"cryptsetup, sectors of 4096": func(t *testing.T) string { return reencrypt(t, plain, key, "4096") },
		"cryptsetup, sectors of 512":  func(t *testing.T) string { return reencrypt(t, plain, key, "512") },
		"QEMU LUKS1": func(t *testing.T) string {
			disk := luks1Disk(t, key, len(plain))
			testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-n", "--object", "secret,id=s,file="+key,
				"--image-opts", "driver=raw,file.filename="+writeFile(t, "plain", plain),
				"--target-image-opts", "driver=luks,key-secret=s,file.filename="+disk)
			return disk
		},
	} {
		t.Run(name, func(t *testing.T) {
			disk := encrypt(t)
			h := readFile(t, disk)
			_, volumeKey, err := h.Unlock(testPassphrase)
			if err != nil {
				t.Fatal(err)
			}
			s := h.Segment()
			c, err := NewCipher(volumeKey, s.SectorSize, s.IVTweak)
			if err != nil {
				t.Fatal(err)
			}
			all, err := os.ReadFile(disk)
			if err != nil {
				t.Fatal(err)
			}
			encrypted := all[s.Offset:][:len(plain)]
			var decrypted, again bytes.Buffer
			if _, err := (Stream{Cipher: c}).Decrypt(t.Context(), &decrypted, bytes.NewReader(encrypted)); err != nil || !bytes.Equal(decrypted.Bytes(), plain) {
				t.Errorf("decryption does not give the data back: %v", err)
			}
			if _, err := (Stream{Cipher: c}).Encrypt(t.Context(), &again, bytes.NewReader(plain)); err != nil || !bytes.Equal(again.Bytes(), encrypted) {
				t.Errorf("encryption gives other bytes: %v", err)
			}
		})
	}
}

// reencrypt has cryptsetup encrypt data in place, without device-mapper.
func reencrypt(t *testing.T, plain []byte, key, sectorSize string) string {
	t.Helper()
	cryptsetup := testtool.Program(t, "cryptsetup")
	disk := writeFile(t, "disk", plain)
	if err := os.Truncate(disk, int64(len(plain))+32<<20); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, cryptsetup, "reencrypt", "-q", "--encrypt", "--type", "luks2", "--reduce-device-size", "32M",
		"--sector-size", sectorSize, "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--key-file", key, disk)
	return disk
}

// luks1Disk has cryptsetup make a disk in the one LUKS format that QEMU knows.
func luks1Disk(t *testing.T, key string, size int) string {
	t.Helper()
	disk := writeFile(t, "disk", nil)
	if err := os.Truncate(disk, 2<<20+int64(size)); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "cryptsetup"), "luksFormat", "-q", "--type", "luks1", "--offset", "4096",
		"--pbkdf-force-iterations", "1000", "--key-file", key, disk)
	return disk
}

// TestQEMUReadsOurs is the reverse for data: qemu-img decrypts what our cipher wrote behind its
// own header.
func TestQEMUReadsOurs(t *testing.T) {
	qemuImg := testtool.Program(t, "qemu-img")
	key, out := writeFile(t, "key", testPassphrase), filepath.Join(t.TempDir(), "plain")
	disk := luks1Disk(t, key, 2<<20)
	h := readFile(t, disk)
	_, volumeKey, err := h.Unlock(testPassphrase)
	if err != nil {
		t.Fatal(err)
	}
	plain := make([]byte, 2<<20)
	rand.Read(plain)
	c, err := NewCipher(volumeKey, h.Segment().SectorSize, h.Segment().IVTweak)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	encrypted := make([]byte, len(plain))
	if err := c.Encrypt(encrypted, plain, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(encrypted, h.Segment().Offset); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, qemuImg, "convert", "--object", "secret,id=s,file="+key, "--image-opts", "driver=luks,key-secret=s,file.filename="+disk, "-O", "raw", out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("qemu-img reads other data: %v", err)
	}
}
