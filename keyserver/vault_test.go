package keyserver

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/sealboot/sealboot/sev"
)

// TestVault writes secrets down and spoils what was written.
func TestVault(t *testing.T) {
	good := testVault().encode()
	v, err := parseVault(good)
	must(t, err)
	if !bytes.Equal(v.encode(), good) || len(v.secrets) != 3 || !v.rotating() {
		t.Fatalf("%+v", v)
	}
	for i := range good {
		if v, err := parseVault(good[:i]); err == nil && !bytes.Equal(v.encode(), good[:i]) {
			t.Errorf("cut at %d: %+v", i, v)
		}
	}
	for name, spoil := range map[string]func(*vault){
		"twice":                      func(v *vault) { v.secrets = append(v.secrets, v.secrets[2]) },
		"out of order":               func(v *vault) { v.secrets[0], v.secrets[1] = v.secrets[1], v.secrets[0] },
		"no version":                 func(v *vault) { v.secrets[0].current.version = 0 },
		"version before is newer":    func(v *vault) { v.secrets[1].previous.version = 9 },
		"version before has nothing": func(v *vault) { v.secrets[1].previous.data = nil },
	} {
		v := testVault()
		spoil(v)
		if _, err := parseVault(v.encode()); !errors.Is(err, errVault) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func testVault() *vault {
	v := new(vault)
	now := time.Unix(1_800_000_000, 0)
	v.put(keyBundle, []byte("{}"), now)
	v.put(sev.DiskPassphrase, []byte("old"), now)
	v.put(aFile, []byte("x"), now)
	s := v.find(sev.DiskPassphrase)
	s.previous = s.current
	s.next([]byte("new"), now)
	v.find(aFile).current.data = nil
	return v
}

func FuzzVault(f *testing.F) {
	f.Add(testVault().encode())
	f.Add(new(vault).encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := parseVault(bytes.Clone(b))
		if err == nil && !bytes.Equal(v.encode(), b) {
			t.Fatalf("%x became %x", b, v.encode())
		}
	})
}
