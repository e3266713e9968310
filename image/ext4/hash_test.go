package ext4

import (
	"fmt"
	"strings"
	"testing"
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
				option, with := "", [4]uint32{}
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
