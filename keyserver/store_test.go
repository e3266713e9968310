package keyserver

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// TestRegistrationNeeds starts from a registration that is taken and spoils one thing at a time.
func TestRegistrationNeeds(t *testing.T) {
	l := newLab(t)
	l.register("web")
	for _, bad := range []struct {
		name  string
		want  error
		spoil func(*Registration)
	}{
		{"name of a path", ErrName, func(r *Registration) { r.Name = "../web" }},
		{"no name", ErrName, func(r *Registration) { r.Name = "" }},
		{"name taken", ErrImageThere, func(r *Registration) { r.Name = "web" }},
		{"empty policy", ErrNotSaid, func(r *Registration) { r.Policy = Policy{} }},
		{"debugging allowed", ErrPolicy, func(r *Registration) { r.Policy.SEV.Guest &^= sev.NoDebug }},
		{"key sharing allowed", ErrPolicy, func(r *Registration) { r.Policy.SEV.Guest &^= sev.NoKeySharing }},
		{"sending allowed", ErrPolicy, func(r *Registration) { r.Policy.SEV.Guest &^= sev.NoSend }},
		{"unknown bit", ErrPolicy, func(r *Registration) { r.Policy.SEV.Guest |= 0x40 }},
		{"no passphrase", ErrNoSecret, func(r *Registration) { r.Passphrase = nil }},
		{"passphrase larger than the secret area", sev.ErrTableTooLarge, func(r *Registration) { r.Passphrase = make([]byte, 3072-20) }},
		{"no digest of the mode", ErrNoDigest, func(r *Registration) { r.Record.Digests = r.Record.Digests[2:] }},
		{"no digest of SEV-ES", ErrNoDigest, func(r *Registration) { r.Record.Digests = r.Record.Digests[:2]; r.Policy.SEV.Guest |= sev.ES }},
		{"no digest at all", measure.ErrRecord, func(r *Registration) { r.Record.Digests = nil }},
		{"no header pin", measure.ErrRecord, func(r *Registration) { r.Record.Disk.HeaderPin = measure.Hash{} }},
		{"no record", errAny, func(r *Registration) { r.Record = nil }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			r := Registration{Name: "new", Record: testRecord(), Policy: DefaultPolicy(), Passphrase: testPassphrase}
			must(t, r.Validate())
			bad.spoil(&r)
			version, err := l.store.Register(t.Context(), r, l.clock())
			if err == nil || version != 0 || bad.want != errAny && !errors.Is(err, bad.want) {
				t.Errorf("version %d, error %v; want %v", version, err, bad.want)
			}
		})
	}
	if images, err := l.store.Images(t.Context()); err != nil || len(images) != 1 {
		t.Errorf("store has %d images, %v", len(images), err)
	}
	// All complaints come at once.
	err := Registration{}.Validate()
	for _, want := range []error{ErrName, ErrNotSaid, ErrNoSecret} {
		if !errors.Is(err, want) {
			t.Errorf("an empty registration is not told %q", want)
		}
	}
}

var errAny = errors.New("any error")

// TestReplaceAndRevoke changes an image under open sessions.
func TestReplaceAndRevoke(t *testing.T) {
	l := newLab(t)
	l.register("web")
	open := func() *launch {
		h := newLaunch(platforms()[0], "web")
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		return h
	}
	before := open()
	l.register("web", func(r *Registration) { r.Replace = true })
	_, err := before.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Expired)
	l.good("web")

	before = open()
	must(t, l.store.Revoke(t.Context(), Revocation{RevokedImage, "web", "sold", l.clock()}))
	_, err = before.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Refused)
	if cause := l.lastCause(); !strings.HasPrefix(cause, "image is revoked: sold") {
		t.Errorf("audit says %q", cause)
	}
	before = open()
	_, err = before.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Refused)
	if err := l.store.Revoke(t.Context(), Revocation{RevokedImage, "nobody", "sold", l.clock()}); !errors.Is(err, ErrNoImage) {
		t.Errorf("revoke of an unknown image: %v", err)
	}
	l.register("web", func(r *Registration) { r.Replace = true })
	l.good("web")
	images, err := l.store.Images(t.Context())
	must(t, err)
	if len(images) != 1 || images[0].Version != 3 || images[0].Revoked {
		t.Errorf("%+v", images)
	}
}

// TestChangedRows lets somebody write into the database who does not have the store key.
func TestChangedRows(t *testing.T) {
	for _, attack := range []struct {
		name, statement, cause string
		begun                  bool // the session is there before the attack
	}{
		{"record swapped", `UPDATE images SET record = (SELECT record FROM images WHERE name = 'theirs') WHERE name = 'web'`, "open image's secret", true},
		{"policy swapped", `UPDATE images SET policy = (SELECT policy FROM images WHERE name = 'theirs') WHERE name = 'web'`, "open image's secrets", true},
		{"policy swapped before", `UPDATE images SET policy = (SELECT policy FROM images WHERE name = 'theirs') WHERE name = 'web'`, "open image's secret", false},
		{"secret swapped", `UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE image = 'theirs') WHERE image = 'web'`, "open image's secret", true},
		{"secret of a twin", `UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE image = 'twin') WHERE image = 'web'`, "open image's secret", true},
		{"secret dropped", `DELETE FROM secrets WHERE image = 'web'`, "open image's secrets", true},
		{"policy back", `UPDATE images SET policy = (SELECT policy FROM policies WHERE image = 'web' AND version = 1) WHERE name = 'web'`, "open image's secrets", true},
		{"policy and its version back", `UPDATE images SET policy_version = 1, policy = (SELECT policy FROM policies WHERE image = 'web' AND version = 1) WHERE name = 'web'`, "open image's secrets", true},
		{"old policy beside a new record", `UPDATE images SET policy = (SELECT policy FROM policies WHERE image = 'web' AND version = 1),
			record = (SELECT record FROM images WHERE name = 'theirs') WHERE name = 'web'`, "open image's secrets", true},
		{"secrets of the version before", `UPDATE secrets SET sealed = (SELECT value FROM settings WHERE name = 'stolen') WHERE image = 'web'`, "open image's secrets", true},
		{"count of releases back", `UPDATE releases SET n = n - 1`, errCount.Error(), true},
		{"count of releases of a twin", `UPDATE releases SET n = 0, mac = (SELECT mac FROM releases WHERE image = 'twin') WHERE image = 'web'`, errCount.Error(), true},
		{"count of releases dropped", `DELETE FROM releases`, errCount.Error(), true},
		{"count of releases dropped before", `DELETE FROM releases`, errCount.Error(), false},
		{"revocation dropped", `DELETE FROM revocations; UPDATE generation SET n = n + 1`, ErrRevocations.Error(), true},
		{"revocation of another", `UPDATE revocations SET value = 'other/0123456789abcdef'; UPDATE generation SET n = n + 1`, ErrRevocations.Error(), true},
		{"revocations and their MAC dropped", `DELETE FROM revocations; DELETE FROM settings WHERE name = 'revocations-mac'; UPDATE generation SET n = n + 1`, ErrRevocations.Error(), false},
		{"platform of the session", `UPDATE sessions SET platform = 'test/0123456789abcdef' WHERE state = 'open'`, "open session's keys", true},
		{"chip of the session", `UPDATE sessions SET chip = '' WHERE state = 'open'`, "open session's keys", true},
		{"session of another image", `UPDATE sessions SET image = 'theirs' WHERE state = 'open'`, "open session's keys", true},
		{"session lives longer", `UPDATE sessions SET expires = expires + 3600 WHERE state = 'open'`, "open session's keys", true},
		{"version back", `UPDATE images SET version = version + 1; UPDATE sessions SET image_version = image_version + 1 WHERE state = 'open'`, "open session's keys", true},
	} {
		t.Run(attack.name, func(t *testing.T) {
			l := newLab(t)
			l.register("web")
			l.register("theirs", func(r *Registration) {
				r.Policy.SEV.Guest |= sev.Domain
				r.Passphrase = []byte("theirs")
				r.Record.MadeWith["by"] = "them"
			})
			l.register("twin", func(r *Registration) { r.Passphrase = []byte("theirs") })
			must(t, l.store.Revoke(t.Context(), Revocation{RevokedChip, "lost/0123456789abcdef", "lost", l.clock()}))
			_, err := l.store.db.Exec(`INSERT INTO settings (name, value) SELECT 'stolen', sealed FROM secrets WHERE image = 'web'`)
			must(t, err)
			l.register("web", func(r *Registration) { r.Replace = true })
			p := DefaultPolicy()
			p.Releases = Only(int64(100))
			_, err = l.store.SetPolicy(t.Context(), "web", p, l.clock())
			must(t, err)
			l.good("web")
			h := newLaunch(platforms()[0], "web")
			if attack.begun {
				must(t, h.begin(t.Context(), l.client))
				h.measure(t)
			}
			_, err = l.store.db.Exec(attack.statement)
			must(t, err)
			if !attack.begun {
				must(t, h.begin(t.Context(), l.client))
				h.measure(t)
			}
			_, err = h.finish(t.Context(), l.client)
			refusedAs(t, err, wire.Refused)
			if !slices.ContainsFunc(l.rows(), func(r Row) bool { return r.Session == h.session.ID && strings.Contains(r.Cause, attack.cause) }) {
				t.Errorf("audit says %q, want %q in it", l.lastCause(), attack.cause)
			}
		})
	}
}

// TestEndedSessionStaysEnded writes past the server: the database itself refuses.
func TestEndedSessionStaysEnded(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.good("web")
	if _, err := l.store.read.exec(t.Context(), `UPDATE sessions SET state = 'open', sealed = ?`, []byte{0}); err == nil {
		t.Error("a released session was opened again")
	}
}

// TestWrongKey opens a store with another store's key.
func TestWrongKey(t *testing.T) {
	l := newLab(t)
	l.stop()
	other := testKey(t)
	if _, err := OpenStore(t.Context(), l.dir, other, rand.Reader, l.clock()); !errors.Is(err, ErrWrongKey) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenStore(t.Context(), newLocation(t), l.key, rand.Reader, l.clock()); !errors.Is(err, ErrNoStore) {
		t.Errorf("nothing there: %v", err)
	}
	if err := CreateStore(t.Context(), l.dir, other, l.clock()); !errors.Is(err, ErrStoreThere) {
		t.Errorf("a store over one that is there: %v", err)
	}
}

// TestCutOffMaking opens a folder in which the making of a store was cut off.
func TestCutOffMaking(t *testing.T) {
	sqliteAlone(t, "PostgreSQL has the whole store or nothing")
	key := testKey(t)
	half := t.TempDir()
	must(t, os.WriteFile(filepath.Join(half, databaseName), nil, 0o600))
	if _, err := OpenStore(t.Context(), half, key, rand.Reader, time.Now()); err == nil || !strings.Contains(err.Error(), "never finished") {
		t.Errorf("got %v", err)
	}
}

// TestNewerStore opens a store that a later program made.
func TestNewerStore(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.good("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	_, err := l.store.db.Exec(`INSERT INTO migrations VALUES (99, 0)`)
	must(t, err)
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Internal) // a server that ran on
	l.stop()
	if _, err := OpenStore(t.Context(), l.dir, l.key, rand.Reader, l.clock()); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "newer sealboot") {
		t.Errorf("got %v", err)
	}
}

// TestDurability is a premise: every connection of a store has the settings that durability rests on.
func TestDurability(t *testing.T) {
	sqliteAlone(t, "TestPostgresDurability")
	l := newLab(t)
	l.register("web")
	for name, want := range map[string]string{"journal_mode": "wal", "synchronous": "2", "foreign_keys": "1", "secure_delete": "1"} {
		for _, conn := range []interface {
			QueryRowContext(context.Context, string, ...any) *sql.Row
		}{l.store.db, l.store.writes} {
			var got string
			must(t, conn.QueryRowContext(t.Context(), `PRAGMA `+name).Scan(&got))
			if got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
}

// TestDiskFull fills the database while a release is under way: nothing comes out, the session stays open, and with
// room again it is released once.
func TestDiskFull(t *testing.T) {
	sqliteAlone(t, "TestPostgresDiskFull")
	l := newLab(t)
	l.register("web")
	l.good("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	var pages int
	must(t, l.store.writes.QueryRowContext(t.Context(), `PRAGMA page_count`).Scan(&pages))
	setLimit := func(n int) {
		var got int
		must(t, l.store.write(t.Context(), func(tx *transaction) error { return nil })) // the writer is idle after it
		must(t, l.store.db.QueryRow(`SELECT 1`).Scan(&got))
		must(t, l.store.writes.QueryRowContext(t.Context(), `PRAGMA max_page_count = `+strconv.Itoa(n)).Scan(&got))
	}
	fill := func() { // so that no page has room for an audit row
		for range 10_000 {
			if err := l.store.write(t.Context(), func(tx *transaction) error {
				return tx.audit(Entry{Time: l.clock(), Event: EventExpire, Cause: strings.Repeat("x", 50)})
			}); err != nil {
				return
			}
		}
		t.Fatal("the database never filled up")
	}
	setLimit(pages)
	fill()
	setLimit(pages) // of the new connection that the writer has after the failure
	_, err := h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Internal)
	setLimit(pages + 1000)
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
	l.rows()
}

// TestNoNewMACForAChangedList lets somebody drop a revocation and wait for the owner to change something: the list is not signed anew.
func TestNoNewMACForAChangedList(t *testing.T) {
	for name, change := range map[string]func(*lab) error{
		"register": func(l *lab) error {
			_, err := l.store.Register(t.Context(), Registration{Name: "new", Record: testRecord(), Policy: DefaultPolicy(), Passphrase: testPassphrase}, l.clock())
			return err
		},
		"revoke": func(l *lab) error {
			return l.store.Revoke(t.Context(), Revocation{RevokedImage, "web", "sold", l.clock()})
		},
		"unrevoke": func(l *lab) error {
			return l.store.Unrevoke(t.Context(), RevokedDigest, strings.Repeat("00", 32), l.clock())
		},
		"list": func(l *lab) error { _, err := l.store.Revocations(t.Context()); return err },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.register("web")
			for _, digest := range []string{"00", "11"} {
				must(t, l.store.Revoke(t.Context(), Revocation{RevokedDigest, strings.Repeat(digest, 32), "lost", l.clock()}))
			}
			_, err := l.store.db.Exec(`DELETE FROM revocations WHERE value LIKE '11%'`)
			must(t, err)
			if err := change(l); !errors.Is(err, ErrRevocations) {
				t.Errorf("got %v", err)
			}
			_, err = newLaunch(platforms()[0], "web").run(t, l.client)
			if name == "list" {
				return // the generation is that of the list which the server knows: it goes by that
			}
			if err != nil {
				refusedAs(t, err, wire.Refused)
			}
		})
	}
}

// TestRevocationForms takes what can be revoked and nothing else.
func TestRevocationForms(t *testing.T) {
	chip := strings.Repeat("0f", 32)
	for _, good := range []Revocation{
		{RevokedImage, "web", "x", time.Time{}}, {RevokedDigest, chip, "x", time.Time{}}, {RevokedDigest, strings.Repeat("0", 96), "x", time.Time{}},
		{RevokedChip, chip, "x", time.Time{}}, {RevokedChip, chip + chip, "x", time.Time{}}, {RevokedChip, "Milan/0123456789abcdef", "x", time.Time{}},
		{RevokedSecret, "web/" + sev.DiskPassphrase.String(), "x", time.Time{}},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, bad := range []Revocation{
		{}, {RevokedImage, "../web", "x", time.Time{}}, {RevokedDigest, chip[2:], "x", time.Time{}}, {RevokedDigest, strings.ToUpper(chip), "x", time.Time{}},
		{RevokedChip, "Milan", "x", time.Time{}}, {RevokedChip, "Mi lan/0123456789abcdef", "x", time.Time{}}, {RevokedSecret, "web", "x", time.Time{}},
		{RevokedSecret, "web/" + strings.ToUpper(sev.DiskPassphrase.String()), "x", time.Time{}}, {"host", "web", "x", time.Time{}},
		{RevokedImage, "web", "", time.Time{}}, {RevokedImage, "web", "a\nb", time.Time{}}, {RevokedImage, "web", strings.Repeat("x", 257), time.Time{}},
	} {
		if err := bad.Validate(); !errors.Is(err, ErrRevocation) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// TestSmallDisk does the same with a disk of one megabyte.
func TestSmallDisk(t *testing.T) {
	sqliteAlone(t, "TestPostgresDiskFull")
	disk := t.TempDir()
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "mode=0700,size=1m"); err != nil {
		t.Skipf("no right to mount a small disk: %v", err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	l := newLabAt(t, filepath.Join(disk, "store"))
	defer l.stop()
	l.register("web")
	l.good("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	l.fillDisk("database or disk is full")
	_, err := h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Internal)
	must(t, unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, "mode=0700,size=8m"))
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
	l.rows()
}
