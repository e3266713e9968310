package agent

import (
	"bytes"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/luks/layout"
)

// bootVolume gives a boot volume of 1 MiB, made by mke2fs.
func bootVolume(t *testing.T, options ...string) []byte {
	t.Helper()
	image := filepath.Join(t.TempDir(), "boot")
	testtool.Output(t, testtool.Program(t, "mke2fs"), append(append([]string{"-q", "-t", "ext4", "-O", "metadata_csum", "-L", layout.Label}, options...), image, "1M")...)
	content, err := os.ReadFile(image)
	check(t, err)
	return content
}

// newDivided makes a disk with a boot volume and twice its size for the root. spoil changes the payload before it is encrypted.
func newDivided(t *testing.T, sector int, spoil func(payload []byte) []byte) *good {
	t.Helper()
	h, key, err := luks.Format(luks.Spec{UUID: testUUID, DataOffset: testOffset, SectorSize: sector, KDF: luks.MinimalPBKDF2}, passphrase, rand.Reader)
	check(t, err)
	encoded, err := h.Encode()
	check(t, err)
	payload := append(bootVolume(t), make([]byte, 2<<20)...)
	if spoil != nil {
		payload = spoil(payload)
	}
	cipher, err := luks.NewCipher(key, sector, 0)
	check(t, err)
	check(t, cipher.Encrypt(payload, payload, 0))
	content := append(append(encoded, make([]byte, testOffset-len(encoded))...), payload...)
	return &good{
		disk:      &memoryDisk{content: content, size: int64(len(content)), reads: map[int64]int{}},
		keys:      Keys{Passphrase: bytes.Clone(passphrase), Pin: h.Pin()},
		volumeKey: key.Bytes(),
	}
}

// TestDivided: boot volume and root are parts of one encrypted payload. dm-crypt must count their IVs from its beginning.
func TestDivided(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		g := newDivided(t, sector, nil)
		m, err := g.open(t)
		if err != nil {
			t.Fatal(err)
		}
		root := Table{RootName, testUUID, "254:1", "aes-xts-plain64", testOffset + 1<<20, 2 << 20, sector, 2048}
		boot := Table{BootName, testUUID, "254:1", "aes-xts-plain64", testOffset, 1 << 20, sector, 0}
		if !slices.Equal(m.tables, []Table{root, boot}) {
			t.Errorf("sectors of %d: %+v", sector, m.tables)
		}
		for block, times := range g.disk.reads {
			if times > 1 {
				t.Errorf("block %d was read %d times", block, times)
			}
		}
	}
}

// TestNotDivided spoils one thing of a boot volume: it is refused, or the payload is the root, which it does not hold.
func TestNotDivided(t *testing.T) {
	const super = 1024 // Linux Documentation/filesystems/ext4/super.rst
	for name, c := range map[string]struct {
		spoil func(payload []byte) []byte
		want  error
	}{
		"noise where its name is":   {func(p []byte) []byte { rand.Read(p[super+0x70 : super+0x90]); return p }, nil},
		"noise where its size is":   {func(p []byte) []byte { rand.Read(p[super : super+0x10]); return p }, layout.ErrDamaged},
		"noise in its checksum":     {func(p []byte) []byte { rand.Read(p[super+0x3f0 : super+0x400]); return p }, layout.ErrDamaged},
		"no root behind it":         {func(p []byte) []byte { return p[:1<<20] }, layout.ErrDamaged},
		"less than it":              {func(p []byte) []byte { return p[:1<<19] }, layout.ErrDamaged},
		"a file system of its kind": {func(p []byte) []byte { copy(p, bootVolume(t, "-L", "root")); return p }, nil},
	} {
		g := newDivided(t, 4096, c.spoil)
		m, err := g.open(t)
		if c.want == nil {
			if err != nil || len(m.tables) != 1 || m.tables[0].Name != RootName || m.tables[0].Start != testOffset {
				t.Errorf("%s: %+v, %v", name, m.tables, err)
			}
		} else if !errors.Is(err, ErrBootVolume) || !errors.Is(err, c.want) || len(m.tables) != 0 {
			t.Errorf("%s: %+v, %v", name, m.tables, err)
		}
	}
	g := newDivided(t, 4096, nil)
	g.disk.content = g.disk.content[:testOffset+100] // the host answers no more
	if m, err := g.open(t); !errors.Is(err, ErrBootVolume) || len(m.tables) != 0 {
		t.Errorf("unreadable: %+v, %v", m.tables, err)
	}
}
