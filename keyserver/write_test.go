package keyserver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// TestBusy fills the queue of writes.
func TestBusy(t *testing.T) {
	l := newLab(t)
	hold, held := make(chan struct{}), make(chan struct{})
	done := make(chan error)
	go func() {
		done <- l.store.write(context.Background(), func(*transaction) error { close(held); <-hold; return nil })
	}()
	<-held
	results := make(chan error, queueLength)
	for range queueLength {
		go func() { results <- l.store.write(context.Background(), func(*transaction) error { return nil }) }()
	}
	for deadline := time.Now().Add(10 * time.Second); len(l.store.queue) < queueLength; {
		if time.Now().After(deadline) {
			t.Fatal("the queue does not fill")
		}
		time.Sleep(time.Millisecond)
	}
	if err := l.store.write(t.Context(), func(*transaction) error { return nil }); !errors.Is(err, ErrBusy) {
		t.Errorf("got %v", err)
	}
	close(hold)
	must(t, <-done)
	for range queueLength {
		must(t, <-results)
	}
}

// TestWritesFailAlone puts a failing write between two good ones of one batch.
func TestWritesFailAlone(t *testing.T) {
	l := newLab(t)
	note := func(cause string, fail error) *write {
		return &write{ctx: t.Context(), done: make(chan error, 1), do: func(tx *transaction) error {
			return errors.Join(tx.audit(Entry{Time: l.clock(), Event: EventExpire, Cause: cause}), fail)
		}}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	left := note("caller gone", nil)
	left.ctx = gone
	batch := []*write{note("first", nil), note("second", errAny), left, note("last", nil)}
	l.stopWriter()
	var told []string
	l.store.Observe(Observer{})
	l.store.Observe(Observer{
		Batch: func() func(int, int) {
			return func(written, failed int) { told = append(told, fmt.Sprint(written, failed)) }
		},
		Decided: func(e Entry) { told = append(told, e.Cause) },
		Signed:  func(c auditlog.Checkpoint, note []byte) { told = append(told, fmt.Sprint("signed ", c.Size)) },
	})
	l.store.commit(batch)
	for i, want := range []error{nil, errAny, context.Canceled, nil} {
		if err := <-batch[i].done; !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	if want := []string{"first", "last", "signed 2", "2 2"}; !slices.Equal(told, want) {
		t.Errorf("observer was told %q, want %q", told, want)
	}
	rows := l.rows()
	if len(rows) != 2 || rows[0].Cause != "first" || rows[1].Cause != "last" {
		t.Errorf("%+v", rows)
	}
}

// stopWriter lets the test stand in for the writer.
func (l *lab) stopWriter() {
	l.t.Helper()
	held := make(chan struct{})
	hold := make(chan struct{})
	go l.store.write(context.Background(), func(*transaction) error { close(held); <-hold; return nil })
	<-held
	close(hold)
	must(l.t, l.store.write(context.Background(), func(*transaction) error { return nil }))
}
