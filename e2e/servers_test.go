package e2e

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
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
// PostgreSQL. Each refuses a changed firmware and sees the passphrase change: a boot while it is under way, the guest's word, and its end. On one
// the guest itself gives its disk the new passphrase.
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
			if kind.whole {
				r.during(t, r.new, r.old)
			} else {
				r.during(t, r.old, "no more") // as if the disk had changed before
			}
			r.wantRefused(t, r.launch(t, lab.Machine{Firmware: firmware}), "release", "refused", "measurement does not match")
			if kind.whole {
				t.Run("before the disk is changed", r.before)
			}
			t.Run("after the disk is changed", r.after)
			if kind.whole {
				t.Run("after the secrets are changed again", r.late)
				t.Run("neither is the disk's", r.neither)
			}
		})
	}
}

// rotation is a stage with a key server of its own, in which the passphrase is being changed, and an image whose guest tells that
// server over the network which one opened the disk.
type rotation struct {
	*stage
	old, new string // what opens the disk, and what does once its guest has added it
}

func newRotation(t *testing.T, location string) *rotation {
	t.Helper()
	s := theStage(t)
	own := *s.Lab
	own.Store = lab.Store{Location: location, Key: "file:" + filepath.Join(t.TempDir(), "store.key")}
	r := &rotation{&stage{Lab: &own, secret: s.secret}, rand.Text() + rand.Text(), rand.Text() + rand.Text()}
	if err := r.Register(t.Context(), s.image); err != nil { // makes the store
		t.Fatal(err)
	}
	var err error
	if r.server, err = r.ServeTLS(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.server.Stop(); err != nil {
			t.Error("key server:", err)
		}
	})
	source := filepath.Join(t.TempDir(), "oci")
	if err := lab.MakeOCI(source, s.rootfs(), r.confirming(t)); err != nil {
		t.Fatal(err)
	}
	if r.image, _, err = r.Build(t.Context(), "rotated-"+filepath.Base(t.Name()), source, "512M", "--key-file", r.file(t, r.old)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(r.image.Dir) })
	if err := r.Register(t.Context(), r.image, "--secret", "e6f5a162-d67f-4750-a67c-5d065f2a9910="+r.file(t, "{}")); err != nil { // GRUB leaves it for the guest
		t.Fatal(err)
	}
	return r
}

// confirming makes the layer of a root file system that its owner adds for a change of passphrase: the programs, the server's CA, and the
// command of the unit in packaging, with this server's address. Where the previous passphrase was used, the new one gets a key slot.
func (r *rotation) confirming(t *testing.T) string {
	t.Helper()
	const begins, example = "\nExecStart=", "https://keys.example.org:8443"
	_, command, _ := strings.Cut(string(read(t, filepath.Join(testtool.Project(), "packaging", "sealboot-confirm.service"))), begins)
	command, _, _ = strings.Cut(command, "\n")
	address := strings.Replace(r.server.URL, "127.0.0.1", lab.HostInGuest, 1)
	if strings.Count(command, example) != 1 || address == r.server.URL {
		t.Fatalf("the unit's command is %q, the server at %s", command, r.server.URL)
	}
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{
		{"usr/bin/sealboot-client", 0o755, read(t, filepath.Join(r.Bin, "sealboot-client"))},
		{"usr/bin/sealboot-builder", 0o755, read(t, filepath.Join(r.Bin, "sealboot-builder"))},
		{"etc/sealboot/ca.crt", 0o644, read(t, r.server.CA)},
		{"etc/old", 0o600, []byte(r.old)},
		{"etc/new", 0o600, []byte(r.new)},
		{"etc/sealboot-confirm", 0o644, []byte(strings.Replace(command, example, address, 1) + addKey)},
	} {
		err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data))})
		if _, writing := w.Write(f.data); err != nil || writing != nil {
			t.Fatal(err, writing)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return r.file(t, layer.String())
}

const addKey = `
code=$?
if /bin/busybox grep -qs '"used":"previous"' /run/sealboot/receipt; then
	/usr/bin/sealboot-builder luks add-key /dev/vda1 --key-file /etc/old --new-key-file /etc/new --kdf minimal
fi
exit $code
`

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// file gives a file with this content.
func (r *rotation) file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// during registers the image with an old passphrase and begins the change to a new one.
func (r *rotation) during(t *testing.T, new, old string) {
	t.Helper()
	for _, args := range [][]string{
		{"register", "--record", r.image.Record(), "--key-file", r.file(t, old), "--name", r.image.Name, "--replace"},
		{"secret", "rotate", r.image.Name, "passphrase", "--file", r.file(t, new)},
	} {
		r.keyserver(t, args...)
	}
}

// boots launches the machine, which has to be opened by that passphrase, and to end its confirm so. Once the machine has its secret,
// and before its kernel runs, meanwhile happens.
func (r *rotation) boots(t *testing.T, which string, meanwhile func(), confirm ...string) {
	t.Helper()
	o := r.launch(t, lab.Machine{Network: true, OnConsole: func(line, control string) {
		if meanwhile != nil && contains(line, "sealboot: disk unlocked") {
			tellMonitor(t, control, "stop")
			meanwhile()
			tellMonitor(t, control, "cont")
		}
	}})
	r.wantBoot(t, o)
	for _, line := range append(confirm, " was opened by the "+which+" passphrase") {
		if !contains(o.Console, line) {
			t.Errorf("the guest did not say %q; console:\n%s", line, o.Console)
		}
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

func (r *rotation) before(t *testing.T) {
	r.boots(t, "previous", nil, "the disk was opened by the previous passphrase", "key slot 1\n", "confirm: exit code 3, the receipt is kept\n")
	r.wantVersions(t, 3, 2) // 1 came with the image, 2 replaced it
	r.wantDecision(t, "release", "", "")
}

func (r *rotation) after(t *testing.T) {
	r.boots(t, "new", nil, "confirmed: from now on", "confirm: exit code 0\n")
	r.wantVersions(t, 3, 0)
	r.wantDecision(t, "confirm-secret", "", "used by the guest")
}

// late is a guest whose owner changes the image's secrets once more after it was given them: its word comes too late.
func (r *rotation) late(t *testing.T) {
	r.during(t, r.old, "no more")
	r.boots(t, "new", func() {
		r.keyserver(t, "secret", "put", r.image.Name, "3f0c8a52-6b1d-4f7e-9a34-7c2d5e8b9a10", "--file", r.file(t, "another"))
	}, "(refused; its log has the cause as request ", "confirm: exit code 3, the receipt is kept\n")
	r.wantDecision(t, "confirm-secret", "refused", "the secrets were changed after it")
	r.wantVersions(t, 5, 4)
	r.keyserver(t, "secret", "roll-back", r.image.Name, "passphrase")
	r.wantVersions(t, 6, 0)
}

func (r *rotation) neither(t *testing.T) {
	r.during(t, "not yet", "no more")
	r.wantStopped(t, r.launch(t, lab.Machine{}), "wrong passphrase: neither the new nor the previous one opens the disk")
}

func (r *rotation) keyserver(t *testing.T, args ...string) {
	t.Helper()
	if _, err := r.Keyserver(t.Context(), args...); err != nil {
		t.Fatal(err)
	}
}
