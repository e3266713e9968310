package keyserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// TestCheckpoints has the rows signed by number, by time, and on demand.
func TestCheckpoints(t *testing.T) {
	l := newLab(t)
	note := func(n int) {
		t.Helper()
		for range n {
			must(t, l.store.write(t.Context(), func(tx *transaction) error {
				return tx.audit(Entry{Time: l.clock(), Event: EventExpire, Count: 1})
			}))
		}
	}
	sizes := func() (list []int64) {
		t.Helper()
		notes, err := l.store.readCheckpoints(t.Context(), l.store.read, 100)
		must(t, err)
		for _, n := range notes {
			list = append(list, n.Size)
		}
		must(t, l.verify())
		return list
	}
	want := func(list ...int64) {
		t.Helper()
		if got := sizes(); !slices.Equal(got, list) {
			t.Fatalf("checkpoints %v, want %v", got, list)
		}
	}
	want()
	if due, err := l.store.CheckpointDue(t.Context(), l.clock()); err != nil || due != nil {
		t.Fatalf("without rows: %q, %v", due, err)
	}
	note(2)
	want(1)
	must(t, l.store.write(t.Context(), func(tx *transaction) error {
		for range checkpointRows {
			if err := tx.audit(Entry{Time: l.clock(), Event: EventExpire}); err != nil {
				return err
			}
		}
		return nil
	}))
	want(1, 1002)
	note(1)
	l.wait(checkpointAge - time.Second)
	note(1)
	want(1, 1002)
	l.wait(time.Second)
	due, err := l.store.CheckpointDue(t.Context(), l.clock())
	must(t, err)
	c, err := l.key.AuditKey().Open(due)
	must(t, err)
	if c.Size != 1004 || !c.Time.Equal(l.clock()) {
		t.Errorf("%+v", c)
	}
	want(1, 1002, 1004)
	if due, err := l.store.CheckpointDue(t.Context(), l.clock()); err != nil || due != nil {
		t.Fatalf("all are signed: %q, %v", due, err)
	}
	l.wait(checkpointAge)
	note(1)
	want(1, 1002, 1004, 1005)
	note(1)
	first, err := l.store.Checkpoint(t.Context(), l.clock())
	must(t, err)
	l.wait(time.Minute)
	second, err := l.store.Checkpoint(t.Context(), l.clock())
	must(t, err)
	if !bytes.Equal(first, second) {
		t.Error("the same rows were signed twice")
	}
	want(1, 1002, 1004, 1005, 1006)
	var line struct{ Note string }
	for text := range bytes.Lines(l.log.bytes()) {
		if bytes.Contains(text, []byte(`"msg":"audit signed"`)) {
			must(t, json.Unmarshal(text, &line))
		}
	}
	if line.Note != string(first) {
		t.Errorf("the log's last checkpoint is %q", line.Note)
	}
}

// TestExport verifies exports with the public key alone, and finds what was changed before they were made.
func TestExport(t *testing.T) {
	l := fiveRows(t)
	public, err := auditlog.ParsePublicKey(l.key.AuditKey().String())
	must(t, err)
	export := func(after []byte) []byte {
		t.Helper()
		var b bytes.Buffer
		must(t, l.store.ExportAudit(t.Context(), &b, l.clock(), after))
		return b.Bytes()
	}
	entries := 0
	summary, err := public.Verify(bytes.NewReader(export(nil)), nil, func(r auditlog.Row) error {
		if entries++; entries == 1 && !strings.Contains(string(r.Entry), `"event":"register","image":"web"`) {
			t.Errorf("first row %s", r.Entry)
		}
		return nil
	})
	must(t, err)
	if entries != 5 || summary.Rows != 5 || summary.Last.Size != 5 {
		t.Fatalf("%d entries, %+v", entries, summary)
	}
	first, err := l.store.Checkpoint(t.Context(), l.clock())
	must(t, err)
	l.good("web")
	ignore := func(auditlog.Row) error { return nil }
	more := export(first)
	summary, err = public.Verify(bytes.NewReader(more), nil, ignore)
	must(t, err)
	if summary.First.Size != 5 || summary.Last.Size != 7 || summary.Rows != 2 {
		t.Errorf("%+v", summary)
	}
	if again := export(first); !bytes.Equal(again, more) {
		t.Error("the same export has other bytes")
	}
	_, err = public.Verify(bytes.NewReader(export(nil)), []auditlog.Checkpoint{summary.First, summary.Last}, ignore)
	must(t, err)

	var b bytes.Buffer
	if err := l.store.ExportAudit(t.Context(), &b, l.clock(), bytes.Replace(first, []byte("\n5\n"), []byte("\n4\n"), 1)); !errors.Is(err, auditlog.ErrSignature) {
		t.Errorf("behind a checkpoint that is nobody's: %v", err)
	}
	_, err = l.store.db.Exec(`UPDATE audit SET entry = replace(entry, 'web', 'wob') WHERE seq = 7`)
	must(t, err)
	chain := (*ChainError)(nil)
	if err := l.store.ExportAudit(t.Context(), &b, l.clock(), first); !errors.As(err, &chain) || chain.Seq != 7 {
		t.Errorf("got %v", err)
	}
	_, err = l.store.db.Exec(`DELETE FROM audit WHERE seq = 7`)
	must(t, err)
	if err := l.store.ExportAudit(t.Context(), &b, l.clock(), nil); !errors.As(err, &chain) || chain.Seq != 7 {
		t.Errorf("got %v", err)
	}
}

// TestExportOfNothing exports and verifies an audit without rows.
func TestExportOfNothing(t *testing.T) {
	l := newLab(t)
	var b bytes.Buffer
	must(t, l.store.ExportAudit(t.Context(), &b, l.clock(), nil))
	s, err := l.key.AuditKey().Verify(&b, nil, func(auditlog.Row) error { return nil })
	must(t, err)
	if s.Rows != 0 || s.Last.Size != 0 || s.Checkpoints != 1 {
		t.Errorf("%+v", s)
	}
	l.register("web")
	must(t, l.verify())
}
