package agent

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/agent/receipt"
	"github.com/sealboot/sealboot/luks"
)

func TestGoodDisk(t *testing.T) {
	g := newGood(t)
	m, err := g.open(t)
	if err != nil {
		t.Fatal(err)
	}
	want := Table{Name: RootName, UUID: testUUID, Device: "254:1", Cipher: "aes-xts-plain64", Start: testOffset, Length: testData, SectorSize: 4096}
	if !slices.Equal(m.tables, []Table{want}) {
		t.Errorf("tables %+v, want %+v", m.tables, want)
	}
	if !bytes.Equal(m.key, g.volumeKey) {
		t.Error("another volume key than the disk's")
	}
	blocks := 0
	for block, times := range g.disk.reads {
		blocks++
		if times > 1 {
			t.Errorf("block %d was read %d times", block, times)
		}
	}
	if blocks == 0 {
		t.Error("nothing was read")
	}
}

// TestAttacks spoils one thing of a disk that opens. Nothing may be mapped then.
func TestAttacks(t *testing.T) {
	replace := func(from, to string) func(*testing.T, *good) {
		return func(t *testing.T, g *good) {
			rewrite(t, g.disk.content, func(json []byte) []byte { return bytes.ReplaceAll(json, []byte(from), []byte(to)) })
		}
	}
	// otherHeader puts the header of another disk in place, of the same UUID and passphrase.
	otherHeader := func(t *testing.T, g *good) { copy(g.disk.content, newGood(t).disk.content) }
	attacks := []struct {
		name  string
		spoil func(*testing.T, *good)
		want  error
		kind  error // of the header's refusal
	}{
		{"CVE-2025-59054: null cipher in segment and key slot", replace(`"encryption":"aes-xts-plain64"`, `"encryption":"cipher_null-ecb"`), ErrHeader, luks.ErrCipher},
		{"CVE-2025-58356: null cipher in the key slot alone", func(t *testing.T, g *good) {
			rewrite(t, g.disk.content, func(json []byte) []byte {
				return bytes.Replace(json, []byte(`"encryption":"aes-xts-plain64"`), []byte(`"encryption":"cipher_null-ecb"`), 1)
			})
		}, ErrHeader, luks.ErrCipher},
		{"header swapped for one with another volume key", otherHeader, ErrPin, nil},
		{"header of a null cipher and another volume key", func(t *testing.T, g *good) {
			otherHeader(t, g)
			replace(`"encryption":"aes-xts-plain64"`, `"encryption":"cipher_null-ecb"`)(t, g)
		}, ErrHeader, luks.ErrCipher},
		{"other sector size", replace(`"sector_size":4096`, `"sector_size":512`), ErrPin, nil},
		{"data moved", replace(`"offset":"1048576"`, `"offset":"1052672"`), ErrPin, nil},
		{"IV shifted", replace(`"iv_tweak":"0"`, `"iv_tweak":"8"`), ErrPin, nil},
		{"header changes after the first reading", func(t *testing.T, g *good) {
			evil := newGood(t).disk.content
			g.disk.answer = func(off int64, times int, p []byte) {
				if times > 1 {
					copy(p, evil[off:])
				}
			}
		}, nil, nil}, // the second answer is never asked for
		{"header changes before the first reading is over", func(t *testing.T, g *good) {
			evil := newGood(t).disk.content
			g.disk.answer = func(off int64, _ int, p []byte) {
				if off >= 4096 {
					copy(p, evil[off:])
				}
			}
		}, ErrPin, nil},
		{"key slot area of another disk", func(t *testing.T, g *good) { copy(g.disk.content[32<<10:], newGood(t).disk.content[32<<10:]) }, ErrKey, nil},
		{"truncated where the data begins", func(_ *testing.T, g *good) { g.disk.size = testOffset }, ErrTruncated, nil},
		{"truncated in data of a fixed size", func(t *testing.T, g *good) {
			replace(`"size":"dynamic"`, `"size":"1048576"`)(t, g)
			h, err := luks.Read(g.disk, g.disk.size)
			if err != nil {
				t.Fatal(err)
			}
			g.keys.Pin = h.Pin()
			if _, err := g.open(t); err != nil {
				t.Fatalf("before it was truncated: %v", err)
			}
			g.disk.size -= 4096
		}, ErrHeader, luks.ErrSize},
		{"truncated inside the header", func(_ *testing.T, g *good) { g.disk.size = 8192 }, ErrHeader, nil},
		{"UUID of another disk", func(t *testing.T, g *good) { g.disk.content = newGoodUUID(t, "") }, ErrNoDisk, nil},
		{"wrong passphrase", func(_ *testing.T, g *good) { g.keys.Passphrase[0] ^= 1 }, ErrKey, nil},
		{"wrong pin", func(_ *testing.T, g *good) { g.keys.Pin[31] ^= 1 }, ErrPin, nil},
		{"pin of zeros", func(_ *testing.T, g *good) { g.keys.Pin = luks.Pin{} }, ErrPin, nil},
		{"no disk", func(_ *testing.T, g *good) { g.disk = emptyDisk() }, ErrNoDisk, nil},
	}
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			g := newGood(t)
			a.spoil(t, g)
			m, err := g.open(t)
			if !errors.Is(err, a.want) || a.want == nil && err != nil {
				t.Fatalf("error %v, want %v", err, a.want)
			}
			if a.kind != nil && !errors.Is(err, a.kind) {
				t.Errorf("error %v, want one that is %v", err, a.kind)
			}
			if err != nil && len(m.tables) != 0 {
				t.Error("a device was mapped")
			}
			if err == nil && !bytes.Equal(m.key, g.volumeKey) {
				t.Error("mapped with another volume key")
			}
		})
	}
}

// TestShrinks: the host resizes the disk after its header was read.
func TestShrinks(t *testing.T) {
	g := newGood(t)
	rewrite(t, g.disk.content, func(json []byte) []byte {
		return bytes.Replace(json, []byte(`"size":"dynamic"`), []byte(`"size":"1048576"`), 1)
	})
	found := &Found{Name: "vda1", Disk: g.disk}
	var err error
	if found.Header, err = luks.Read(g.disk, g.disk.size); err != nil {
		t.Fatal(err)
	}
	g.keys.Pin = found.Header.Pin()
	if _, err := Unlock(found, &g.keys, &mapper{}); err != nil {
		t.Fatalf("before it shrank: %v", err)
	}
	g.disk.size -= 4096
	m := &mapper{}
	if _, err := Unlock(found, &g.keys, m); !errors.Is(err, ErrTruncated) || len(m.tables) != 0 {
		t.Errorf("error %v, devices mapped: %+v", err, m.tables)
	}
}

// TestCostlySlots: slots that cost a lot are not tried where a cheap one opens. The costly slot here is first
// in number and broken, so that trying it would show.
func TestCostlySlots(t *testing.T) {
	g := newGood(t)
	disk := &writableDisk{g.disk}
	h, err := luks.Read(disk, g.disk.size)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddKey(disk, passphrase, []byte("a person's"), luks.KDF{Type: luks.Argon2id, Time: 4, MemoryKiB: 32, Parallel: 1}, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if _, err := h.AddKey(disk, passphrase, passphrase, luks.MinimalPBKDF2, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := h.RemoveSlot(disk, 0, rand.Reader); err != nil {
		t.Fatal(err)
	}
	order := []string{}
	for _, s := range cheapFirst(h.Slots()) {
		order = append(order, string(s.KDF.Type))
	}
	if len(order) != 2 || order[0] != string(luks.PBKDF2) {
		t.Errorf("the slots are tried in the order %v", order)
	}
	if key, err := volumeKey(h, passphrase); err != nil || !bytes.Equal(key.Bytes(), g.volumeKey) {
		t.Errorf("error %v", err)
	}
	if key, err := volumeKey(h, []byte("a person's")); err != nil || !bytes.Equal(key.Bytes(), g.volumeKey) {
		t.Errorf("a person's passphrase: error %v", err)
	}
}

// newGoodUUID makes a disk of another UUID.
func newGoodUUID(t *testing.T, uuid string) []byte {
	t.Helper()
	g := newGood(t)
	header := g.disk.content
	for _, at := range []int{168, 16384 + 168} {
		header[at] ^= 1
	}
	rewrite(t, header, func(json []byte) []byte { return bytes.Replace(json, []byte(`"tokens":{}`), []byte(`"tokens": {}`), 1) })
	return header
}

func TestMapperFails(t *testing.T) {
	g := newGood(t)
	found := &Found{Name: "vda1", Disk: g.disk}
	var err error
	if found.Header, err = luks.Read(g.disk, g.disk.size); err != nil {
		t.Fatal(err)
	}
	if _, err := Unlock(found, &g.keys, &mapper{fails: errMap}); !errors.Is(err, errMap) {
		t.Errorf("error %v", err)
	}
}

// TestTakeKeys: the files are gone afterwards, whatever was wrong with them.
func TestTakeKeys(t *testing.T) {
	pin := bytes.Repeat([]byte{7}, 32)
	note := bytes.Repeat([]byte{9}, receipt.Size)
	word := []byte(receipt.Previous)
	for _, c := range []struct {
		name            string
		passphrase, pin []byte
		want            error
		used, receipt   []byte
	}{
		{"good", []byte("pass\nphrase\x00"), pin, nil, nil, nil},
		{"good with a receipt", []byte("p"), pin, nil, word, note},
		{"good with the word alone", []byte("p"), pin, nil, []byte("current"), nil},
		{"receipt without the word", []byte("p"), pin, ErrReceipt, nil, note},
		{"receipt with another word", []byte("p"), pin, ErrReceipt, []byte("both"), note},
		{"receipt with a long word", []byte("p"), pin, ErrReceipt, make([]byte, 5000), note},
		{"receipt too short", []byte("p"), pin, ErrReceipt, word, note[:47]},
		{"receipt too long", []byte("p"), pin, ErrReceipt, word, append(bytes.Clone(note), 9)},
		{"receipt, but no passphrase", nil, pin, ErrNoPassphrase, word, note},
		{"pin missing", []byte("p"), nil, ErrNoPin, nil, nil},
		{"pin of zero length", []byte("p"), []byte{}, ErrNoPin, nil, nil},
		{"pin too short", []byte("p"), pin[:31], ErrNoPin, nil, nil},
		{"pin too long", []byte("p"), append(bytes.Clone(pin), 7), ErrNoPin, nil, nil},
		{"passphrase missing", nil, pin, ErrNoPassphrase, nil, nil},
		{"passphrase of zero length", []byte{}, pin, ErrNoPassphrase, nil, nil},
		{"passphrase too long", make([]byte, maxPassphrase+1), pin, ErrNoPassphrase, nil, nil},
		{"nothing", nil, nil, ErrNoPassphrase, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := filepath.Join(t.TempDir(), "key")
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
			var kept []*os.File // other names of the same pages
			for name, content := range map[string][]byte{PassphraseFile: c.passphrase, PinFile: c.pin, UsedFile: c.used, ReceiptFile: c.receipt} {
				if content == nil {
					continue
				}
				path := filepath.Join(folder, name)
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				kept = append(kept, f)
			}
			keys, err := TakeKeys(folder)
			if !errors.Is(err, c.want) || (err == nil) != (keys != nil) {
				t.Fatalf("keys %v, error %v, want %v", keys != nil, err, c.want)
			}
			if keys != nil && (!bytes.Equal(keys.Passphrase, c.passphrase) || !bytes.Equal(keys.Pin[:], c.pin)) {
				t.Error("other keys than the files had")
			}
			if keys != nil {
				if r := keys.Receipt; (r != nil) != (c.receipt != nil) || r != nil && (!bytes.Equal(slices.Concat(r.Session[:], r.Key[:]), c.receipt) || r.Used != string(c.used)) {
					t.Errorf("receipt %+v", r)
				}
				keys.Wipe()
				if len(bytes.Trim(keys.Passphrase, "\x00")) != 0 || keys.Receipt != nil && keys.Receipt.Key != [32]byte{} {
					t.Error("the keys were not wiped")
				}
			}
			if _, err := os.Lstat(folder); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the key files are still there: %v", err)
			}
			for _, f := range kept {
				content := make([]byte, 8192)
				n, _ := f.Read(content)
				if len(bytes.Trim(content[:n], "\x00")) != 0 {
					t.Errorf("%s was not overwritten", f.Name())
				}
			}
		})
	}
}
