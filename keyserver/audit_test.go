package keyserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// fiveRows is a lab with an audit that holds.
func fiveRows(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	l.register("web")
	l.good("web")
	l.good("web")
	if n := len(l.rows()); n != 5 {
		t.Fatalf("%d rows", n)
	}
	return l
}

func (l *lab) verify(kept ...auditlog.Checkpoint) error {
	return l.store.Audit(l.t.Context(), func(Row) error { return nil }, kept...)
}

// rechain computes the rows' hashes anew, as somebody can who writes the database and has no key.
func (l *lab) rechain() {
	l.t.Helper()
	rows, err := l.store.db.Query(`SELECT seq, entry FROM audit ORDER BY seq`)
	must(l.t, err)
	var head auditlog.Head
	type row struct {
		seq  int64
		head auditlog.Head
	}
	var list []row
	for rows.Next() {
		var seq int64
		var entry string
		must(l.t, rows.Scan(&seq, &entry))
		head = head.Next([]byte(entry))
		list = append(list, row{seq, head})
	}
	must(l.t, rows.Close())
	for _, r := range list {
		_, err := l.store.read.exec(l.t.Context(), `UPDATE audit SET seq = ?, hash = ? WHERE seq = ?`, r.head.Size, r.head.Hash[:], r.seq)
		must(l.t, err)
	}
}

// TestAuditChain changes, drops, swaps, adds and cuts off rows: each is found, at the right row. So is each when the
// chain was computed anew: then at the next checkpoint, or at the end.
func TestAuditChain(t *testing.T) {
	const swap = `UPDATE audit SET seq = -seq WHERE seq IN (2, 3); UPDATE audit SET seq = 5 + seq WHERE seq < 0`
	for _, attack := range []struct {
		name, statement string
		rechain         bool
		seq             int64
	}{
		{"changed", `UPDATE audit SET entry = replace(entry, 'web', 'wob') WHERE seq = 2`, false, 2},
		{"dropped", `DELETE FROM audit WHERE seq = 2`, false, 2},
		{"first dropped", `DELETE FROM audit WHERE seq = 1`, false, 1},
		{"last dropped", `DELETE FROM audit WHERE seq = 5`, false, 5},
		{"all dropped", `DELETE FROM audit`, false, 1},
		{"swapped", swap, false, 2},
		{"added", `INSERT INTO audit SELECT 6, event, class, entry, hash FROM audit WHERE seq = 5`, false, 6},
		{"renumbered", `DELETE FROM audit WHERE seq = 2; UPDATE audit SET seq = seq - 1 WHERE seq > 2`, false, 2},
		{"column changed", `UPDATE audit SET class = 'refused' WHERE seq = 2`, false, 2},
		{"entry does not read", `UPDATE audit SET entry = 'x' WHERE seq = 5`, true, 5},

		{"changed, chained anew", `UPDATE audit SET entry = replace(entry, 'web', 'wob') WHERE seq = 2`, true, 5},
		{"first changed, chained anew", `UPDATE audit SET entry = replace(entry, 'web', 'wob') WHERE seq = 1`, true, 1},
		{"dropped, chained anew", `DELETE FROM audit WHERE seq = 2`, true, 5},
		{"swapped, chained anew", swap, true, 5},
		{"added, chained anew", `INSERT INTO audit SELECT 6, event, class, entry, hash FROM audit WHERE seq = 5`, true, 6},

		{"checkpoint changed", `UPDATE checkpoints SET note = replace(note, 'time 2', 'time 1')`, false, 1},
		{"checkpoint moved", `UPDATE checkpoints SET seq = 2`, false, 2},
		{"checkpoint dropped", `DELETE FROM checkpoints`, false, 1},
	} {
		t.Run(attack.name, func(t *testing.T) {
			l := fiveRows(t)
			_, err := l.store.db.Exec(attack.statement)
			must(t, err)
			if attack.rechain {
				l.rechain()
			}
			err = l.verify()
			chain := (*ChainError)(nil)
			if !errors.As(err, &chain) || chain.Seq != attack.seq {
				t.Errorf("got %v, want row %d", err, attack.seq)
			}
		})
	}
}

// TestAuditHead writes a head without the key: it is found, and the server writes no more and releases nothing.
func TestAuditHead(t *testing.T) {
	for name, spoil := range map[string]func(value []byte) []byte{
		"rows changed":       func(b []byte) []byte { b[7]++; return b },
		"hash changed":       func(b []byte) []byte { b[8] ^= 1; return b },
		"checkpoint changed": func(b []byte) []byte { b[47]++; return b },
		"time changed":       func(b []byte) []byte { b[55]++; return b },
		"MAC changed":        func(b []byte) []byte { b[87] ^= 1; return b },
		"cut":                func(b []byte) []byte { return b[:87] },
		"longer":             func(b []byte) []byte { return append(b, 0) },
		"dropped":            nil,
	} {
		t.Run(name, func(t *testing.T) {
			l := fiveRows(t)
			h := newLaunch(platforms()[0], "web")
			must(t, h.begin(t.Context(), l.client))
			h.measure(t)
			var value []byte
			must(t, l.store.read.row(t.Context(), `SELECT value FROM settings WHERE name = ?`, auditHead).Scan(&value))
			if spoil == nil {
				_, err := l.store.read.exec(t.Context(), `DELETE FROM settings WHERE name = ?`, auditHead)
				must(t, err)
			} else {
				_, err := l.store.read.exec(t.Context(), `UPDATE settings SET value = ? WHERE name = ?`, spoil(value), auditHead)
				must(t, err)
			}
			if err := l.verify(); !errors.Is(err, ErrAuditHead) {
				t.Errorf("got %v", err)
			}
			_, err := h.finish(t.Context(), l.client)
			refusedAs(t, err, wire.Internal)
			l.stop()
			store, err := OpenStore(t.Context(), l.dir, l.key, l.config.Random, l.clock())
			must(t, err)
			defer store.Close()
			l.config.Store = store
			if _, err := NewServer(l.config); !errors.Is(err, ErrAuditHead) {
				t.Errorf("such a store is served: %v", err)
			}
			rows := 0
			if err := store.Audit(t.Context(), func(Row) error { rows++; return nil }); !errors.Is(err, ErrAuditHead) || rows != 6 {
				t.Errorf("its owner sees %d rows, %v", rows, err)
			}
		})
	}
}

// TestAuditRolledBack puts an older state of audit and head back. A running server sees it; one that was started
// after it cannot, but a checkpoint kept elsewhere shows it.
func TestAuditRolledBack(t *testing.T) {
	l := fiveRows(t)
	var old []byte
	must(t, l.store.db.QueryRow(`SELECT value FROM settings WHERE name = 'audit-head'`).Scan(&old))
	l.good("web")
	note, err := l.store.Checkpoint(t.Context(), l.clock())
	must(t, err)
	kept, err := l.key.AuditKey().Open(note)
	must(t, err)
	must(t, l.verify(kept))
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)

	_, err = l.store.read.exec(t.Context(), `UPDATE settings SET value = ? WHERE name = 'audit-head'`, old)
	must(t, err)
	_, err = l.store.db.Exec(`DELETE FROM audit WHERE seq > 5; DELETE FROM checkpoints WHERE seq > 5`)
	must(t, err)
	must(t, l.verify()) // it holds by itself
	chain := (*ChainError)(nil)
	if err := l.verify(kept); !errors.As(err, &chain) || chain.Seq != 6 {
		t.Errorf("got %v, want row 6", err)
	}
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Internal)
	l.stop()
	l.start()
	for range 2 { // the same number of rows again, but others
		l.good("web")
	}
	must(t, l.verify())
	if err := l.verify(kept); !errors.As(err, &chain) || chain.Seq != 7 {
		t.Errorf("got %v, want row 7", err)
	}
}

// TestAuditHashLength gives a row a hash that begins with the right one.
func TestAuditHashLength(t *testing.T) {
	l := fiveRows(t)
	var hash []byte
	must(t, l.store.read.row(t.Context(), `SELECT hash FROM audit WHERE seq = 2`).Scan(&hash))
	_, err := l.store.read.exec(t.Context(), `UPDATE audit SET hash = ? WHERE seq = 2`, append(hash, 0))
	must(t, err)
	chain := (*ChainError)(nil)
	if err := l.verify(); !errors.As(err, &chain) || chain.Seq != 2 {
		t.Errorf("got %v", err)
	}
}

// TestAuditOfTwoHistories puts a row of another course of things, sound in itself, in the place of one.
func TestAuditOfTwoHistories(t *testing.T) {
	l := newLab(t)
	l.register("web")
	fork := copyStore(t, l.dir)
	l.good("web")
	l.stop()
	home := l.dir
	l.dir = fork
	l.start()
	l.good("web")
	l.rows()
	var entry string
	var hash []byte
	must(t, l.store.db.QueryRow(`SELECT entry, hash FROM audit WHERE seq = 2`).Scan(&entry, &hash))
	l.stop()
	l.dir = home
	l.start()
	_, err := l.store.read.exec(t.Context(), `UPDATE audit SET entry = ?, hash = ? WHERE seq = 2`, entry, hash)
	must(t, err)
	chain := (*ChainError)(nil)
	if err := l.verify(); !errors.As(err, &chain) || chain.Seq != 3 {
		t.Errorf("got %v, want row 3: the one behind it was written after another", err)
	}
}

// firstForm turns the lab's stopped store into one whose audit is chained in the first form, and opens it.
func (l *lab) firstForm(spoil string) error {
	l.t.Helper()
	l.stop()
	db, _, err := openDatabase(l.dir)
	must(l.t, err)
	rows, err := db.Query(`SELECT seq, entry FROM audit ORDER BY seq`)
	must(l.t, err)
	var entries []string
	for rows.Next() {
		var seq int64
		var entry string
		must(l.t, rows.Scan(&seq, &entry))
		entries = append(entries, entry)
	}
	must(l.t, rows.Close())
	_, err = db.Exec(`CREATE TABLE audit_1 (seq INTEGER PRIMARY KEY, entry TEXT NOT NULL, mac BLOB NOT NULL) STRICT;
		DELETE FROM audit; DELETE FROM checkpoints`)
	must(l.t, err)
	var mac []byte
	for i, entry := range entries {
		m := hmac.New(sha256.New, l.key.rows1)
		m.Write(joined([][]byte{mac, number(int64(i + 1)), []byte(entry)}))
		mac = m.Sum(nil)
		_, err := db.Exec(`INSERT INTO audit_1 VALUES (?, ?, ?)`, i+1, entry, mac)
		must(l.t, err)
	}
	_, err = db.Exec(`UPDATE settings SET value = ? WHERE name = 'audit-head'`, append(binary.BigEndian.AppendUint64(nil, uint64(len(entries))), mac...))
	must(l.t, err)
	_, err = db.Exec(spoil)
	must(l.t, err)
	must(l.t, db.Close())
	store, err := OpenStore(l.t.Context(), l.dir, l.key, l.config.Random, l.clock())
	if err != nil {
		l.stop = func() {}
		return err
	}
	must(l.t, store.Close())
	l.start()
	return nil
}

// TestFirstForm takes over an audit of the first form, if it holds.
func TestFirstForm(t *testing.T) {
	sqliteAlone(t, "no release kept rows of the first form in PostgreSQL")
	l := fiveRows(t)
	before := l.rows()
	must(t, l.firstForm(``))
	if after := l.rows(); !slices.Equal(before, after) {
		t.Errorf("got %v, had %v", after, before)
	}
	l.good("web")
	if len(l.rows()) != 7 {
		t.Error("it does not go on")
	}
	for name, spoil := range map[string]string{
		"changed":      `UPDATE audit_1 SET entry = replace(entry, 'web', 'wob') WHERE seq = 2`,
		"dropped":      `DELETE FROM audit_1 WHERE seq = 2`,
		"last dropped": `DELETE FROM audit_1 WHERE seq = 5`,
		"all dropped":  `DELETE FROM audit_1`,
	} {
		t.Run(name, func(t *testing.T) {
			l := fiveRows(t)
			chain := (*ChainError)(nil)
			if err := l.firstForm(spoil); !errors.As(err, &chain) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestAuditFilter starts from filters that choose an entry and changes one thing at a time.
func TestAuditFilter(t *testing.T) {
	at := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	e := Entry{Time: at, Event: EventRelease, Image: "web", Class: wire.Refused}
	for name, f := range map[string]AuditFilter{
		"all":   {},
		"exact": {Image: "web", Event: EventRelease, Class: wire.Refused, Refused: true, Since: at, Until: at.Add(1)},
	} {
		if !f.Match(e) {
			t.Errorf("%s does not match", name)
		}
	}
	for name, f := range map[string]AuditFilter{
		"image": {Image: "web2"}, "event": {Event: EventSession}, "class": {Class: wire.Used}, "granted": {Granted: true},
		"since": {Since: at.Add(1)}, "until": {Until: at},
	} {
		if f.Match(e) {
			t.Errorf("%s matches", name)
		}
	}
	if !(AuditFilter{Granted: true}).Match(Entry{}) || (AuditFilter{Refused: true}).Match(Entry{}) {
		t.Error("a granted entry counts as refused")
	}
}

// TestEvents holds the list of events to the constants.
func TestEvents(t *testing.T) {
	text, err := os.ReadFile("audit.go")
	must(t, err)
	var want []Event
	for _, m := range regexp.MustCompile(`(?m)^\tEvent\w+ +Event += "([a-z-]+)"`).FindAllSubmatch(text, -1) {
		want = append(want, Event(m[1]))
	}
	if got := Events(); len(got) < 5 || !slices.Equal(got, want) {
		t.Errorf("listed %v, declared %v", got, want)
	}
}

// TestLongCause writes a cause that is longer than a row may have it.
func TestLongCause(t *testing.T) {
	l := newLab(t)
	must(t, l.store.write(t.Context(), func(tx *transaction) error {
		return tx.audit(Entry{Time: l.clock(), Event: EventRelease, Class: wire.Refused, Cause: strings.Repeat("ä<", 1<<20), Reason: strings.Repeat("\x01", 1<<20)})
	}))
	if row := l.rows()[0]; len(row.Cause) > maxText+10 || !strings.HasSuffix(row.Cause, "(cut)") {
		t.Errorf("%d bytes", len(row.Cause))
	}
	var b bytes.Buffer
	must(t, l.store.ExportAudit(t.Context(), &b, l.clock(), nil))
}
