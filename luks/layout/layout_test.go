package layout

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

const size = 8 << 20

// made gives the beginning of a boot volume that mke2fs made.
func made(t testing.TB, options ...string) []byte {
	t.Helper()
	image := filepath.Join(t.TempDir(), "ext4")
	testtool.Output(t, testtool.Program(t, "mke2fs"), append(append([]string{"-q", "-t", "ext4", "-O", "metadata_csum", "-L", Label}, options...), image, "8M")...)
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return content[:Head]
}

// drawn gives the least that a boot volume's beginning is.
func drawn(blocks uint64, logSize uint32) []byte {
	head := make([]byte, Head)
	super := head[superAt:]
	le := binary.LittleEndian
	le.PutUint32(super[atBlocksLow:], uint32(blocks))
	le.PutUint32(super[atBlocksHigh:], uint32(blocks>>32))
	le.PutUint32(super[atLogBlockSize:], logSize)
	le.PutUint16(super[atMagic:], magic)
	le.PutUint32(super[atIncompat:], incompat64Bit)
	le.PutUint32(super[atROCompat:], roMetadataCsum)
	super[atChecksumType] = crc32c
	copy(super[atName:], Label)
	return sign(head)
}

// sign makes the checksum right.
func sign(head []byte) []byte {
	super := head[superAt : superAt+superEnd]
	binary.LittleEndian.PutUint32(super[atChecksum:], ^crc32.Checksum(super[:atChecksum], crc32.MakeTable(crc32.Castagnoli)))
	return head
}

func TestBootSize(t *testing.T) {
	for _, options := range [][]string{nil, {"-b", "1024"}, {"-b", "4096"}, {"-O", "^64bit"}} {
		head := made(t, options...)
		for _, payload := range []int64{size + 1, 1 << 40} {
			if got, err := BootSize(head, payload); got != size || err != nil {
				t.Errorf("mke2fs %v in %d bytes: %d, %v", options, payload, got, err)
			}
		}
	}
	if got, err := BootSize(drawn(1<<40, 2), math.MaxInt64); got != 1<<52 || err != nil {
		t.Errorf("more than 2^32 blocks: %d, %v", got, err)
	}
}

// TestIsRoot: what has not the label or the magic number is a root.
func TestIsRoot(t *testing.T) {
	good := drawn(size>>12, 2)
	if got, err := BootSize(good, 1<<30); got != size || err != nil {
		t.Fatalf("the good case: %d, %v", got, err)
	}
	for name, spoil := range map[string]func(super []byte){
		"no name":         func(super []byte) { clear(super[atName : atName+nameSize]) },
		"another name":    func(super []byte) { super[atName] = 'S' },
		"a longer name":   func(super []byte) { super[atName+len(Label)] = '2' },
		"a name's twin":   func(super []byte) { super[atName+len(Label)+1] = 'x' },
		"no magic number": func(super []byte) { super[atMagic]++ },
	} {
		head := bytes.Clone(good)
		spoil(head[superAt:])
		if got, err := BootSize(sign(head), 1<<30); got != 0 || err != nil {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	if got, err := BootSize(made(t, "-L", "root"), 1<<30); got != 0 || err != nil {
		t.Errorf("mke2fs's root: %d, %v", got, err)
	}
	if got, err := BootSize(make([]byte, Head), 1<<30); got != 0 || err != nil {
		t.Errorf("nothing: %d, %v", got, err)
	}
}

func TestDamaged(t *testing.T) {
	le := binary.LittleEndian
	for name, c := range map[string]struct {
		payload int64
		spoil   func(super []byte)
		right   bool // the checksum
	}{
		"no checksum":           {1 << 30, func(super []byte) { le.PutUint32(super[atROCompat:], 0) }, true},
		"another checksum":      {1 << 30, func(super []byte) { super[atChecksumType]++ }, true},
		"wrong checksum":        {1 << 30, func(super []byte) { super[atChecksum]++ }, false},
		"a byte":                {1 << 30, func(super []byte) { super[0x200]++ }, false},
		"no blocks":             {1 << 30, func(super []byte) { clear(super[atBlocksLow : atBlocksLow+4]) }, true},
		"no whole MiB":          {1 << 30, func(super []byte) { super[atBlocksLow]++ }, true},
		"blocks too large":      {1 << 30, func(super []byte) { super[atLogBlockSize] = maxLogBlock + 1 }, true},
		"more than 64 bits":     {1 << 30, func(super []byte) { le.PutUint32(super[atBlocksHigh:], math.MaxUint32) }, true},
		"as large as the whole": {size, func([]byte) {}, true},
		"larger than the whole": {size - 1, func([]byte) {}, true},
		"nothing":               {0, func([]byte) {}, true},
		"less than nothing":     {-1, func([]byte) {}, true},
	} {
		head := drawn(size>>12, 2)
		c.spoil(head[superAt:])
		if c.right {
			sign(head)
		}
		if got, err := BootSize(head, c.payload); got != 0 || !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
	if got, err := BootSize(drawn(size>>12, 2)[:Head-1], 1<<30); got != 0 || err == nil || errors.Is(err, ErrDamaged) {
		t.Errorf("too short: %d, %v", got, err)
	}
}

// FuzzBootSize: whatever is taken leaves room for a root, and lies where it can be mapped.
func FuzzBootSize(f *testing.F) {
	for _, payload := range []int64{1 << 30, size, math.MaxInt64, -1} {
		f.Add(drawn(size>>12, 2), payload, true)
		f.Add(drawn(1<<63, 6), payload, true)
	}
	f.Add([]byte{}, int64(0), false)
	f.Fuzz(func(t *testing.T, head []byte, payload int64, right bool) {
		if right && len(head) >= Head {
			sign(head)
		}
		got, err := BootSize(head, payload)
		if err != nil && got != 0 {
			t.Errorf("%d beside the error %v", got, err)
		}
		if got != 0 && (got < Unit || got%Unit != 0 || got >= payload) {
			t.Errorf("%d of %d", got, payload)
		}
	})
}
