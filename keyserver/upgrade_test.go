package keyserver

import (
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// oldStore puts a store of the first form in the place of the lab's, stopped: image "web" as it is in all tests, and a
// revoked one, "gone". The statements may spoil it.
func oldStore(t *testing.T, l *lab, statements ...string) {
	t.Helper()
	sqliteAlone(t, "PostgreSQL never had that form")
	l.stop()
	must(t, os.RemoveAll(l.dir))
	must(t, os.Mkdir(l.dir, 0o700))
	db, err := openSQLite(filepath.Join(l.dir, databaseName))
	must(t, err)
	steps, err := sqliteDialect.migrations()
	must(t, err)
	on := sqliteDialect.on(db)
	must(t, sqliteDialect.take(t.Context(), on, steps[:1], l.clock()))
	must(t, bindKey(t.Context(), on, l.key))
	record, err := testRecord().Encode()
	must(t, err)
	policy := []byte(`{"guest_policy":20381707,"min_api_major":1,"min_api_minor":55,"min_build":21}`)
	id := sev.DiskPassphrase.String()
	sealed, err := l.key.seal(rand.Reader, testPassphrase, []byte("secret"), []byte("web"), number(3), record, policy, []byte(id))
	must(t, err)
	for _, image := range []struct {
		name    string
		version int
		revoked int
	}{{"web", 3, 0}, {"gone", 1, 1}} {
		_, err = on.exec(t.Context(), `INSERT INTO images (name, version, record, policy, registered, revoked) VALUES (?, ?, ?, ?, 0, ?)`,
			image.name, image.version, record, policy, image.revoked)
		must(t, err)
	}
	_, err = on.exec(t.Context(), `INSERT INTO secrets (image, id, sealed) VALUES ('web', ?, ?)`, id, sealed)
	must(t, err)
	for _, s := range statements {
		_, err = db.Exec(s)
		must(t, err)
	}
	must(t, db.Close())
}

// TestUpgrade opens a store of the first form: image, policy and passphrase go on, what was revoked stays so.
func TestUpgrade(t *testing.T) {
	l := newLab(t)
	oldStore(t, l)
	l.start()
	for range 2 {
		l.good("web")
		policies, err := l.store.Policies(t.Context(), "web")
		must(t, err)
		if oldest, only := policies[0].Policy.SEV.MinAPI.Value(); len(policies) != 1 || !only || oldest != testAPI ||
			policies[0].Policy.SEV.Guest != DefaultPolicy().SEV.Guest {
			t.Fatalf("%+v", policies)
		}
		_, err = newLaunch(platforms()[0], "gone").run(t, l.client)
		refusedAs(t, err, wire.Refused)
		list, err := l.store.Revocations(t.Context())
		must(t, err)
		if len(list) != 1 || list[0].Kind != RevokedImage || list[0].Value != "gone" {
			t.Fatalf("%+v", list)
		}
		l.stop()
		l.start()
	}
}

// TestUpgradeOfChangedStore spoils the old store, or makes a new one look like an old one: it does not open.
func TestUpgradeOfChangedStore(t *testing.T) {
	for name, statement := range map[string]string{
		"passphrase gone": `DELETE FROM secrets`,
		"record changed":  `UPDATE images SET record = replace(CAST(record AS TEXT), '000001', '000002') WHERE name = 'web'`,
		"policy changed":  `UPDATE images SET policy = replace(CAST(policy AS TEXT), '21}', '20}') WHERE name = 'web'`,
		"not a policy":    `UPDATE images SET policy = CAST('{}' AS BLOB) WHERE name = 'web'`,
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			oldStore(t, l, strings.NewReplacer("replace(", "CAST(replace(", "') WHERE", "') AS BLOB) WHERE").Replace(statement))
			if s, err := OpenStore(t.Context(), l.dir, l.key, rand.Reader, l.clock()); err == nil {
				s.Close()
				t.Error("it was opened")
			}
		})
	}
	t.Run("a new image made old", func(t *testing.T) {
		l := newLab(t)
		l.register("web")
		l.register("gone")
		must(t, l.store.Revoke(t.Context(), Revocation{RevokedImage, "gone", "test", l.clock()}))
		_, err := l.store.db.Exec(`UPDATE images SET policy_version = 0 WHERE name = 'gone'`)
		must(t, err)
		l.stop()
		if s, err := OpenStore(t.Context(), l.dir, l.key, rand.Reader, l.clock()); !errors.Is(err, errMixed) {
			if err == nil {
				s.Close()
			}
			t.Errorf("got %v", err)
		}
	})
}
