package keyserver

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"errors"
	"io"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// otherKind gives a place for a store in the other kind of database, where both are there.
func otherKind(t testing.TB) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "other")
}

// backup takes a backup of the lab's store.
func (l *lab) backup() []byte {
	l.t.Helper()
	var b bytes.Buffer
	must(l.t, l.store.Backup(l.t.Context(), &b, l.clock()))
	return b.Bytes()
}

// manyRows makes the audit longer than a chunk or two.
func (l *lab) manyRows(cause string) {
	l.t.Helper()
	must(l.t, l.store.write(l.t.Context(), func(tx *transaction) error {
		var err error
		for range 1500 {
			err = errors.Join(err, tx.audit(Entry{Time: l.clock(), Event: EventExpire, Cause: cause}))
		}
		return err
	}))
}

// TestBackup restores a store in its own kind of database and in the other, and back from there: images release as before, open
// sessions are over, the audit goes on.
func TestBackup(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.register("db", func(r *Registration) { r.Passphrase = []byte("another secret of it") })
	// Long names, since a short one may stand in encrypted bytes by chance.
	const once = "released-only-once"
	l.register(once, func(r *Registration) { r.Policy.Releases = Only[int64](1) })
	l.good("web")
	l.good(once)
	must(t, l.store.Revoke(t.Context(), Revocation{RevokedImage, "db", "sold", l.clock()}))
	l.manyRows("a row among many") // more than a chunk
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	images, err := l.store.Images(t.Context())
	must(t, err)
	file := l.backup()
	rows := l.rows()
	if last := rows[len(rows)-1]; last.Event != EventBackup {
		t.Errorf("last row before the backup: %+v", last)
	}
	if len(file) < 2*backupChunk {
		t.Fatalf("backup of %d bytes tests too little", len(file))
	}
	for _, word := range []string{"a row among many", once, "another secret of it", string(testPassphrase)} {
		if bytes.Contains(file, []byte(word)) {
			t.Errorf("backup shows %q", word)
		}
	}
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
	l.stop()

	for name, location := range map[string]string{"same kind": newLocation(t), "SQLite": otherKind(t)} {
		t.Run(name, func(t *testing.T) {
			must(t, Restore(t.Context(), bytes.NewReader(file), location, l.key, rand.Reader, l.clock()))
			copied := &lab{t: t, dir: location, key: l.key, log: l.log, now: l.now, limits: l.limits, config: l.config}
			copied.config.Now = copied.clock
			copied.start()
			defer func() { copied.stop() }()
			again, err := copied.store.Images(t.Context())
			must(t, err)
			if !reflect.DeepEqual(again, images) {
				t.Errorf("images are %+v, were %+v", again, images)
			}
			after := copied.rows()
			if n := len(rows); len(after) != n+1 || !reflect.DeepEqual(after[:n], rows) || after[n].Event != EventRestore || after[n].Count != 1 {
				t.Errorf("audit of %d rows became %d, last %+v", n, len(after), after[len(after)-1])
			}
			_, err = h.finish(t.Context(), copied.client) // the original has released for it
			refusedAs(t, err, wire.UnknownSession)
			for _, image := range []string{once, "db"} { // used up, revoked
				_, err = newLaunch(platforms()[0], image).run(t, copied.client)
				refusedAs(t, err, wire.Refused)
			}
			copied.good("web")
			copied.register("web", func(r *Registration) { r.Replace = true })
			copied.good("web")
			// And once more from there.
			file := copied.backup()
			third := newLocation(t)
			must(t, Restore(t.Context(), bytes.NewReader(file), third, l.key, rand.Reader, l.clock()))
			copied.stop()
			copied.dir = third
			copied.start()
			copied.good("web")
			copied.rows()
		})
	}
}

// TestBackupRefused starts from a backup that restores and spoils one thing at a time. No store comes of it.
func TestBackupRefused(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.manyRows("a row among many")
	good := l.backup()
	must(t, Restore(t.Context(), bytes.NewReader(good), newLocation(t), l.key, rand.Reader, l.clock()))
	if err := Restore(t.Context(), bytes.NewReader(good), l.dir, l.key, rand.Reader, l.clock()); !errors.Is(err, ErrStoreThere) {
		t.Errorf("over a store that is there: %v", err)
	}
	const head, chunk = len(backupMagic) + backupSalt, backupChunk + 16
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 1; return b }
	}
	location := newLocation(t)
	for name, spoil := range map[string]func([]byte) []byte{
		"empty":              func(b []byte) []byte { return nil },
		"head alone":         func(b []byte) []byte { return b[:head] },
		"cut in the head":    func(b []byte) []byte { return b[:head-1] },
		"cut in a chunk":     func(b []byte) []byte { return b[:head+100] },
		"cut between chunks": func(b []byte) []byte { return b[:head+chunk] },
		"cut before the end": func(b []byte) []byte { return b[:len(b)-1] },
		"longer":             func(b []byte) []byte { return append(b, 0) },
		"other line":         flip(0),
		"version 2":          func(b []byte) []byte { b[len(backupMagic)-2] = '2'; return b },
		"other salt":         flip(len(backupMagic)),
		"first byte":         flip(head),
		"last byte":          flip(len(good) - 1),
		"middle":             flip(len(good) / 2),
		"first chunk twice":  func(b []byte) []byte { return append(b[:head+chunk:head+chunk], b[head:]...) },
		"first two chunks swapped": func(b []byte) []byte {
			return append(append(append(b[:head:head], b[head+chunk:head+2*chunk]...), b[head:head+chunk]...), b[head+2*chunk:]...)
		},
		"first chunk dropped": func(b []byte) []byte { return append(b[:head:head], b[head+chunk:]...) },
		"two backups joined":  func(b []byte) []byte { return append(b, b[head:]...) },
	} {
		if err := Restore(t.Context(), bytes.NewReader(spoil(bytes.Clone(good))), location, l.key, rand.Reader, l.clock()); !errors.Is(err, ErrBackup) {
			t.Errorf("%s: %v", name, err)
		}
		if there, err := StoreExists(t.Context(), location); err != nil || there {
			t.Fatalf("%s: a store is there (%v)", name, err)
		}
	}
	if err := Restore(t.Context(), bytes.NewReader(good), location, testKey(t), rand.Reader, l.clock()); !errors.Is(err, ErrBackup) {
		t.Errorf("another store's key: %v", err)
	}
	trouble := errors.New("trouble")
	if err := Restore(t.Context(), io.MultiReader(bytes.NewReader(good[:1000]), failing{trouble}), location, l.key, rand.Reader, l.clock()); !errors.Is(err, trouble) {
		t.Errorf("file that does not read: %v", err)
	}
	if err := l.store.Backup(t.Context(), failing{trouble}, l.clock()); !errors.Is(err, trouble) {
		t.Errorf("file that does not write: %v", err)
	}
	must(t, Restore(t.Context(), bytes.NewReader(good), location, l.key, rand.Reader, l.clock()))
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error)  { return 0, f.err }
func (f failing) Write([]byte) (int, error) { return 0, f.err }

// forged makes a backup file of any records: what only a holder of the key can do.
func forged(t testing.TB, key *Key, records func(*recordWriter)) []byte {
	t.Helper()
	var b bytes.Buffer
	chunks, err := newChunkWriter(&b, key, rand.Reader)
	must(t, err)
	records(&recordWriter{w: chunks})
	must(t, chunks.Close())
	return b.Bytes()
}

// TestBackupOfOtherForms gives records that this program does not write.
func TestBackupOfOtherForms(t *testing.T) {
	l := newLab(t)
	location := newLocation(t)
	steps, err := l.store.dialect.migrations()
	must(t, err)
	form := int64(len(steps))
	for name, test := range map[string]struct {
		want    error
		records func(*recordWriter)
	}{
		"newer form":    {ErrNewer, func(w *recordWriter) { w.header(backupHeader{form: form + 1}); w.end() }},
		"no form":       {ErrBackup, func(w *recordWriter) { w.header(backupHeader{}); w.end() }},
		"no end":        {ErrBackup, func(w *recordWriter) { w.header(backupHeader{form: form}) }},
		"more after it": {ErrBackup, func(w *recordWriter) { w.header(backupHeader{form: form}); w.end(); w.end() }},
		"unknown table": {ErrBackup, func(w *recordWriter) { w.header(backupHeader{form: form}); w.table("nothing", []string{"a"}); w.end() }},
		"sessions": {ErrBackup, func(w *recordWriter) {
			w.header(backupHeader{form: form})
			w.table("sessions", []string{"id"})
			w.end()
		}},
		"other columns": {ErrBackup, func(w *recordWriter) {
			w.header(backupHeader{form: form})
			w.table("settings", []string{"name"})
			w.end()
		}},
		"row without table": {ErrBackup, func(w *recordWriter) { w.header(backupHeader{form: form}); w.row([]any{}); w.end() }},
		"twice a table": {ErrBackup, func(w *recordWriter) {
			w.header(backupHeader{form: form})
			w.table("settings", []string{"name", "value"})
			w.table("settings", []string{"name", "value"})
			w.end()
		}},
		"number for a text": {errAny, func(w *recordWriter) {
			w.header(backupHeader{form: form})
			w.table("settings", []string{"name", "value"})
			w.row([]any{[]byte{1}, int64(1)})
			w.end()
		}},
	} {
		err := Restore(t.Context(), bytes.NewReader(forged(t, l.key, test.records)), location, l.key, rand.Reader, l.clock())
		if err == nil || test.want != errAny && !errors.Is(err, test.want) {
			t.Errorf("%s: %v, want %v", name, err, test.want)
		}
		if there, err := StoreExists(t.Context(), location); err != nil || there {
			t.Fatalf("%s: a store is there (%v)", name, err)
		}
	}
}

// FuzzBackupRecords reads records and writes what was read: the bytes are the same, or were refused.
func FuzzBackupRecords(f *testing.F) {
	seed := func(records func(*recordWriter)) {
		var b bytes.Buffer
		records(&recordWriter{w: &b})
		f.Add(b.Bytes())
	}
	seed(func(w *recordWriter) {
		w.header(backupHeader{form: 3, made: 1_700_000_000, open: 2})
		w.table("settings", []string{"name", "value"})
		w.row([]any{"key-check", []byte{1, 2, 3}})
		w.row([]any{nil, int64(-5)})
		w.table("images", []string{"name"})
		w.end()
	})
	seed(func(w *recordWriter) { w.header(backupHeader{}); w.end() })
	f.Add([]byte{6, 0x80, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		w := &recordWriter{w: &out}
		err := copyRecords(&recordReader{bufio.NewReader(bytes.NewReader(b))}, w)
		if err == nil && !bytes.Equal(out.Bytes(), b) {
			t.Errorf("%x was read as %x", b, out.Bytes())
		}
		if err != nil && !errors.Is(err, ErrBackup) {
			t.Error(err)
		}
	})
}

func copyRecords(r *recordReader, w *recordWriter) error {
	h, err := r.header()
	if err != nil {
		return err
	}
	if err := w.header(h); err != nil {
		return err
	}
	var values []any
	for {
		kind, err := r.kind()
		if err != nil {
			return err
		}
		switch kind {
		case recordEnd:
			return w.end()
		case recordTable:
			name, columns, err := r.table()
			if err != nil {
				return err
			}
			values = make([]any, len(columns))
			if err := w.table(name, columns); err != nil {
				return err
			}
		case recordRow:
			if err := r.row(values); err != nil {
				return err
			}
			if err := w.row(values); err != nil {
				return err
			}
		}
	}
}

// FuzzBackupFile opens files as they come.
func FuzzBackupFile(f *testing.F) {
	key, err := NewKey(make([]byte, keySize))
	must(f, err)
	for _, size := range []int{0, 1, backupChunk - 1, backupChunk, backupChunk + 1, 2 * backupChunk} {
		var b bytes.Buffer
		w, err := newChunkWriter(&b, key, bytes.NewReader(make([]byte, backupSalt)))
		must(f, err)
		w.Write(make([]byte, size))
		must(f, w.Close())
		f.Add(b.Bytes())
		r, err := newChunkReader(&b, key)
		must(f, err)
		plain, err := io.ReadAll(r)
		if size == 0 {
			if !errors.Is(err, ErrBackup) {
				f.Errorf("a file of nothing: %v", err)
			}
		} else if err != nil || len(plain) != size {
			f.Errorf("%d bytes came back as %d: %v", size, len(plain), err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newChunkReader(bytes.NewReader(b), key)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil { // only what was written with the key reads
			var again bytes.Buffer
			w, err := newChunkWriter(&again, key, bytes.NewReader(b[len(backupMagic):]))
			must(t, err)
			r, err := newChunkReader(bytes.NewReader(b), key)
			must(t, err)
			_, err = io.Copy(w, r)
			must(t, err)
			must(t, w.Close())
			if !bytes.Equal(again.Bytes(), b) {
				t.Error("a file reads that is not written so")
			}
		} else if !errors.Is(err, ErrBackup) {
			t.Error(err)
		}
	})
}
