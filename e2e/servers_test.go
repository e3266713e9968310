package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/sev"
)

// TestServers has key servers as their owners run them: by a configuration, over TLS with a CA of their own, on SQLite and on
// PostgreSQL. Each refuses a changed firmware and sees the passphrase change: a boot while it is under way, the guest's word, and its end.
func TestServers(t *testing.T) {
	for _, kind := range []struct {
		name     string
		location func(*testing.T) string
		whole    bool // every turn that a change can take, of which the server's store sees no more
	}{
		{"SQLite", func(t *testing.T) string { return filepath.Join(t.TempDir(), "keys") }, true},
		{"PostgreSQL", func(t *testing.T) string {
			p := testtool.StartPostgres(t)
			t.Cleanup(func() {
				if err := p.Stop(); err != nil {
					t.Error(err)
				}
			})
			p.Database(t, "keys")
			return fmt.Sprintf("postgres://postgres@/keys?host=%s&port=%d", p.Dir, p.Port)
		}, false},
	} {
		t.Run(kind.name, func(t *testing.T) {
			r := newRotation(t, kind.location(t))
			firmware := r.Path("changed-for-" + kind.name + ".fd")
			if err := lab.FlipByte(r.image.Firmware(), firmware, 0x1000); err != nil {
				t.Fatal(err)
			}
			r.during(t, r.right, []byte("no more"))
			r.wantRefused(t, r.launch(t, lab.Machine{Firmware: firmware}), "release", "refused", "measurement does not match")
			t.Run("after the disk is changed", r.after)
			if kind.whole {
				t.Run("before the disk is changed", r.before)
				t.Run("neither is the disk's", r.neither)
			}
		})
	}
}

// rotation is a stage with a key server of its own, in which the passphrase is being changed.
type rotation struct {
	*stage
	right []byte // what opens the disk
}

func newRotation(t *testing.T, location string) *rotation {
	t.Helper()
	s := theStage(t)
	right, err := os.ReadFile(s.image.Passphrase())
	if err != nil {
		t.Fatal(err)
	}
	own := *s.Lab
	own.Store = lab.Store{Location: location, Key: "file:" + filepath.Join(t.TempDir(), "store.key")}
	r := &rotation{&stage{Lab: &own, secret: s.secret, image: s.image}, right}
	other := filepath.Join(t.TempDir(), "other") // a secret that GRUB leaves for the guest
	if err := os.WriteFile(other, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.Register(t.Context(), r.image, "--secret", "e6f5a162-d67f-4750-a67c-5d065f2a9910="+other); err != nil { // makes the store
		t.Fatal(err)
	}
	if r.server, err = r.ServeTLS(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.server.Stop(); err != nil {
			t.Error("key server:", err)
		}
	})
	return r
}

// during registers the image with an old passphrase and begins the change to a new one.
func (r *rotation) during(t *testing.T, new, old []byte) {
	t.Helper()
	file := func(name string, text []byte) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, args := range [][]string{
		{"register", "--record", r.image.Record(), "--key-file", file("old", old), "--name", r.image.Name, "--replace"},
		{"secret", "rotate", r.image.Name, "passphrase", "--file", file("new", new)},
	} {
		if _, err := r.Keyserver(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
}

// boots launches the machine, and has the guest's receipt confirm the change, or not.
func (r *rotation) boots(t *testing.T, which string, code int) {
	t.Helper()
	o := r.launch(t, lab.Machine{})
	r.wantBoot(t, o)
	if !contains(o.Console, " was opened by the "+which+" passphrase") {
		t.Errorf("GRUB did not say which passphrase it was; console:\n%s", o.Console)
	}
	note := filepath.Join(t.TempDir(), "receipt")
	for line := range strings.Lines(o.Console) {
		if _, text, ok := strings.Cut(line, "guest: receipt "); ok {
			if err := os.WriteFile(note, []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	out, err := r.Sealboot(t.Context(), "confirm", "--receipt", note, "--server", r.server.URL, "--server-ca", r.server.CA)
	if err != nil || out.Code != code {
		t.Errorf("confirm: exit code %d, want %d: %v, %s", out.Code, code, err, out.Stderr)
	}
}

// wantVersions fails unless the store has these versions of the passphrase; 0 stands for none.
func (r *rotation) wantVersions(t *testing.T, current, previous int64) {
	t.Helper()
	out, err := r.Keyserver(t.Context(), "secret", "list", r.image.Name, "--json")
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		ID       guid.GUID
		Version  int64
		Previous int64 `json:"previous_version"`
	}
	if err := json.Unmarshal([]byte(out), &list); err != nil {
		t.Fatal(err)
	}
	for _, s := range list {
		if s.ID == sev.DiskPassphrase && s.Version == current && s.Previous == previous {
			return
		}
	}
	t.Errorf("the store has %s: want version %d after %d", out, current, previous)
}

func (r *rotation) after(t *testing.T) {
	r.boots(t, "new", 0)
	r.wantVersions(t, 3, 0) // 1 came with the image, 2 replaced it
	r.wantDecision(t, "confirm-secret", "", "")
}

func (r *rotation) before(t *testing.T) {
	r.during(t, []byte("not yet"), r.right)
	r.boots(t, "previous", 3)
	r.wantVersions(t, 5, 4)
	if _, err := r.Keyserver(t.Context(), "secret", "roll-back", r.image.Name, "passphrase"); err != nil {
		t.Fatal(err)
	}
	r.wantVersions(t, 6, 0)
}

func (r *rotation) neither(t *testing.T) {
	r.during(t, []byte("not yet"), []byte("no more"))
	r.wantStopped(t, r.launch(t, lab.Machine{}), "wrong passphrase: neither the new nor the previous one opens the disk")
}
