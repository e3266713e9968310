package ext4

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestNameHash compares with debugfs' dx_hash, which takes bytes as signed.
func TestNameHash(t *testing.T) {
	path := build(t, testOptions(16<<20), nil)
	seed := [4]uint32{0x11111111, 0x33332222, 0x55554444, 0x55555555} // of the UUID below, as words
	for _, version := range []struct {
		name   string
		number uint8
	}{{"legacy", hashLegacy}, {"half_md4", hashHalfMD4}, {"tea", hashTEA}} {
		for _, name := range []string{"a", "abcd", "sixteen-letters.", "seventeen-letters", strings.Repeat("x", 32), strings.Repeat("y", 33), strings.Repeat("z", 255), "umläut"} {
			for _, seeded := range []bool{false, true} {
				// Without -s, debugfs from 1.47.1 on takes the file system's seed. A seed of zeros means none.
				option, with := " -s 00000000-0000-0000-0000-000000000000", [4]uint32{}
				if seeded {
					option, with = " -s 11111111-2222-3333-4444-555555555555", seed
				}
				out := debugfs(t, path, "dx_hash -h "+version.name+option+" "+name)
				hash, minor := nameHash(name, version.number, with)
				if want := fmt.Sprintf("Hash of %s is 0x%0x (minor 0x%0x)\n", name, hash, minor); out != want {
					t.Errorf("%s: debugfs says %swe say %s", version.name, out, want)
				}
				if unsigned, _ := nameHash(name, version.number+hashLegacyUnsigned, with); (unsigned != hash) != (name == "umläut") {
					t.Errorf("%s: %s hashes to %#x with unsigned bytes", version.name, name, unsigned)
				}
			}
		}
	}
}

// TestCollision has two names of one hash, the first at a leaf's end and the second in the next leaf.
func TestCollision(t *testing.T) {
	o := testOptions(16 << 20)
	o.Inodes = 4096
	w := must(NewWriter(make(memory, o.Size), o))
	hashes := map[uint32]string{}
	var names []string
	var twins [2]string
	for i := 0; twins[0] == "" && i < 1<<20; i++ {
		name := fmt.Sprintf("n%010d", i)
		hash, _ := nameHash(name, hashHalfMD4Unsigned, w.hashSeed)
		if other, ok := hashes[hash]; ok && hash > 1<<28 {
			twins = [2]string{other, name}
		}
		hashes[hash] = name
		names = append(names, name)
	}
	bound, _ := nameHash(twins[0], hashHalfMD4Unsigned, w.hashSeed)
	perLeaf := (blockSize - dirTailSize) / entrySize(twins[0])
	files := []file{regular("/f/"+twins[0], ""), regular("/f/"+twins[1], "")}
	below, above := perLeaf-1, 3*perLeaf
	for _, name := range names {
		switch hash, _ := nameHash(name, hashHalfMD4Unsigned, w.hashSeed); {
		case hash < bound && below > 0:
			below--
		case hash > bound && above > 0:
			above--
		default:
			continue
		}
		files = append(files, regular("/f/"+name, ""))
	}
	path := build(t, o, files)
	r := checked(t, path)
	sameFiles(t, r, files)
	n := must(r.find("/f"))
	tree := must(r.hashTree(n, must(r.folderBlocks(n))))
	if second := tree.leaves[2]; second.low != uint64(bound|1) {
		t.Errorf("the second leaf begins with %#x, the twins have %#x", second.low, bound)
	}
	e := edit(t, must(os.ReadFile(path)))
	for _, twin := range twins {
		if _, err := e.Stat("/f/" + twin); err != nil {
			t.Error(err)
		}
		if err := e.Remove("/f/" + twin); err != nil {
			t.Error(err)
		}
		put(t, e, regular("/f/"+twin, ""))
	}
	for i := range 3 * perLeaf { // until the leaves of the twins are parted
		put(t, e, regular(fmt.Sprintf("/f/m%010d", i), ""))
	}
	edited(t, e, int(o.Size))
}

func TestTimestamp(t *testing.T) {
	for _, c := range []struct{ given, kept time.Time }{
		{at(0, 0), at(0, 0)}, {at(-1, 7), at(-1, 7)}, {at(1<<31, 1), at(1<<31, 1)}, {at(1<<33, 999999999), at(1<<33, 999999999)},
		{at(-1<<31-1, 5), at(-1<<31, 0)}, {at(1<<34, 0), at(1<<34-1<<31-1, 999999999)}, {time.Time{}, at(-1<<31, 0)},
	} {
		got := newTimestamp(c.given)
		// As Linux reads it (ext4_decode_extra_time).
		seconds := int64(int32(got.low())) + int64(got.extra()&3)<<32
		if back := at(seconds, int64(got.extra()>>2)); !back.Equal(c.kept) {
			t.Errorf("%v is read back as %v", c.given, back)
		}
	}
}
