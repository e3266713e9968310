package keyserver

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// gone lets a database remove a file that a test is about to read.
func gone(err error) error {
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// TestNothingSecretIsLeftBehind runs releases and refusals, and then searches log, audit, its export, the metrics, the owner's page and
// every byte of the store, while it runs and after, for the secrets in each form that they could have been written in.
func TestNothingSecretIsLeftBehind(t *testing.T) {
	l := newSNPLab(t)
	l.stop()
	l.monitored = true
	l.start()
	file := []byte("a file for the guest, of which nobody may know")
	l.registerSNP("web", func(r *Registration) { r.Secrets, r.Replace = []Secret{{aFile, file}}, true })
	secrets := map[string][]byte{"passphrase": testPassphrase, "file": file, "next passphrase": []byte("the passphrase that follows it")}
	keysOf := func(name string, h *launch) {
		forge(t, l, h, func(s *sev.Session) { // its measurement stays as it is
			secrets[name+" TIK"] = bytes.Clone(s.TIK[:])
			secrets[name+" TEK"] = bytes.Clone(s.TEK[:])
		})
	}
	good := newLaunch(platforms()[0], "web")
	must(t, good.begin(t.Context(), l.client))
	good.measure(t)
	keysOf("released", good)
	packet, err := good.finish(t.Context(), l.client)
	must(t, err)
	good.unlocked(t, packet)
	bad := newLaunch(platforms()[0], "web")
	must(t, bad.begin(t.Context(), l.client))
	bad.digest[0] ^= 1
	bad.measure(t)
	keysOf("refused", bad)
	if _, err := bad.finish(t.Context(), l.client); err == nil {
		t.Fatal("a wrong digest was released")
	}
	guest := newGuest(t, "web")
	sealed, err := guest.run(t, l.client)
	must(t, err)
	guest.unlocked(t, sealed)
	waiting := newGuest(t, "web")
	must(t, waiting.begin(t.Context(), l.client))
	secrets["open challenge's nonce"] = waiting.challenge.Nonce // not secret, and yet nobody else's
	for range 2 {
		_, err = l.store.RotateSecret(t.Context(), "web", sev.DiskPassphrase, secrets["next passphrase"], l.clock())
		must(t, err)
		table, session := l.table("web")
		receipt, ok := table.Find(sev.ReleaseReceipt)
		if !ok {
			t.Fatal("no receipt")
		}
		secrets["receipt's key"] = receipt[16:]
		must(t, l.client.Confirm(t.Context(), session, wire.ConfirmationRequest{Secret: sev.DiskPassphrase, MAC: wire.ConfirmationMAC(receipt[16:], sev.DiskPassphrase)}))
	}
	still := newLaunch(platforms()[0], "web")
	must(t, still.begin(t.Context(), l.client))
	still.measure(t)
	keysOf("open", still)

	search := func(where string, data []byte) {
		for name, secret := range secrets {
			for form, text := range map[string][]byte{
				"raw": secret, "hex": hex.AppendEncode(nil, secret),
				"HEX":    bytes.ToUpper(hex.AppendEncode(nil, secret)),
				"base64": []byte(base64.RawStdEncoding.EncodeToString(secret)),
			} {
				if bytes.Contains(data, text) {
					t.Errorf("%s (%s) is in %s", name, form, where)
				}
			}
		}
	}
	// The search finds what is there: in the audit the session's id, in the store the image's name.
	rows, err := json.Marshal(l.rows())
	must(t, err)
	if !bytes.Contains(rows, []byte(good.session.ID)) {
		t.Fatal("audit does not name the session")
	}
	search("the audit", rows)
	search("the log", l.log.bytes())
	var export bytes.Buffer
	must(t, l.store.ExportAudit(t.Context(), &export, l.clock(), nil))
	search("the export", export.Bytes())
	released := 0
	for _, row := range l.rows() {
		if row.Event == EventRelease && row.Class == "" && row.Kind == "sev" {
			released++
		}
	}
	owners, err := l.server.OwnersPage("test")
	must(t, err)
	for target, there := range map[string]string{
		"/": ">released<", "/launches": still.session.ID, "/refusals": bad.session.ID, "/changes": "register", "/audit": l.key.AuditKey().Origin(),
		"/metrics": fmt.Sprintf(`decisions_total{class="granted",event="release",kind="sev"} %d`, released),
	} {
		h := owners
		if target == "/metrics" {
			h = l.server.metrics.Handler()
		}
		text := l.look(h, target)
		if !strings.Contains(text, there) {
			t.Errorf("%s does not say %q: the search proves nothing", target, there)
		}
		search(target, []byte(text))
	}
	searchFiles := func(when string) {
		files, found, dir, oid := 0, false, l.dir, ""
		if onPostgres() {
			dir = cluster(t).Dir
			cluster(t).Run(t, "psql", "-c", "CHECKPOINT", "postgres") // the pages as well as the log
			must(t, l.query(`SELECT oid FROM pg_database WHERE datname = current_database()`).Scan(&oid))
		}
		must(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return gone(err)
			}
			if base := filepath.Base(filepath.Dir(path)); onPostgres() && base != oid && base != "pg_wal" && base != filepath.Base(dir) {
				return nil // another test's
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return gone(err)
			}
			found = found || bytes.Contains(data, []byte("web"))
			files++
			search(filepath.Base(path)+" "+when, data)
			if info, err := d.Info(); err == nil && info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		}))
		if files == 0 || !found {
			t.Fatalf("looked at %d files %s, the image's name is in them: %v", files, when, found)
		}
	}
	searchFiles("while it runs")
	l.stop()
	searchFiles("after it stopped")
	if len(secrets) != 11 {
		t.Fatalf("searched for %d secrets", len(secrets))
	}

	// What the log does hold: the cause of the refusal, for the owner.
	if !bytes.Contains(l.log.bytes(), []byte("none of the record's digests fits")) {
		t.Error("log does not tell the cause of the refusal")
	}
}
