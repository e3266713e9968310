package keyserver

import (
	"slices"

	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// Observer is told what a store does: for metrics, and for copies of the checkpoints elsewhere. Fields may be nil. The
// writer calls them, and waits: they must not block.
type Observer struct {
	// Batch is called when a batch of writes begins; what it gives is called when the batch has ended, with the number of
	// writes that are on the disk and of those that failed.
	Batch func() (ended func(written, failed int))
	// Decided is called for each audit entry, once it is on the disk.
	Decided func(Entry)
	// Signed is called for each checkpoint and its signed note, once it is on the disk.
	Signed func(c auditlog.Checkpoint, note []byte)
}

// Observe adds somebody who is told from now on.
func (s *Store) Observe(o Observer) {
	s.observing.Lock()
	defer s.observing.Unlock()
	list := append(slices.Clone(s.observed()), o)
	s.observers.Store(&list)
}

func (s *Store) observed() []Observer {
	if list := s.observers.Load(); list != nil {
		return *list
	}
	return nil
}

// begun tells of a batch that begins; what it gives is for its end.
func (s *Store) begun() (ended func(written, failed int)) {
	var all []func(int, int)
	for _, o := range s.observed() {
		if o.Batch != nil {
			all = append(all, o.Batch())
		}
	}
	return func(written, failed int) {
		for _, f := range all {
			f(written, failed)
		}
	}
}

// committed notes what is on the disk now, and tells of it.
func (s *Store) committed(t trail) {
	s.seen = t.Head
	for _, o := range s.observed() {
		if o.Decided != nil {
			for _, e := range t.entries {
				o.Decided(e)
			}
		}
		if o.Signed != nil {
			for _, c := range t.signed {
				o.Signed(c.Checkpoint, c.note)
			}
		}
	}
}
