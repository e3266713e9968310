package keyserver

import (
	"context"
	"database/sql"
	"errors"
	"time"

	"github.com/sealboot/sealboot/sev"
)

// state is how far a session has come. It leaves "open" once and never comes back: the store's own
// trigger sees to it.
type state string

const (
	open     state = "open"
	released state = "released"
	refused  state = "refused"
	expired  state = "expired" // in time, or it gave way to newer ones
)

// kind says what a session is for.
type kind string

const (
	kindSEV kind = "sev" // a launch: keys are kept for its measurement
	kindSNP kind = "snp" // a report at run time, which names the platform itself: it has ended when it is written
)

// session is a session in the store.
type session struct {
	id       string
	kind     kind
	image    string
	version  int64  // of the image when the session was made; 0: there was none
	platform string // product and digest of its PDH; empty for a report
	chip     string // digest of its CEK's key; empty for a report
	created  time.Time
	expires  time.Time
	state    state
	sealed   []byte // sev.Session, sealed for this row; nil once it has ended
}

// purpose binds the sealed session to its row.
func (s *session) purpose() [][]byte {
	return [][]byte{[]byte("session"), []byte(s.id), []byte(s.image), number(s.version),
		[]byte(s.platform), []byte(s.chip), number(s.expires.Unix())}
}

// session opens a launch session's policy and keys. The caller wipes them.
func (k *Key) session(s *session) (*sev.Session, error) {
	plain, err := k.open(s.sealed, s.purpose()...)
	if err != nil {
		return nil, err
	}
	defer clear(plain)
	return sev.ParseSession(plain)
}

var errNoSession = errors.New("no such session")

// Sessions that have ended stay known, so that a late host is told "used" or "expired": for an hour after their
// expiry, and no more than this many, beside those whose challenges are not over yet.
const (
	keepEnded      = time.Hour
	maxEnded       = 100_000
	sessionColumns = `id, kind, image, image_version, platform, chip, created, expires, state, sealed`
)

func (t *transaction) insertSession(s *session) error {
	_, err := t.exec(`INSERT INTO sessions (`+sessionColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		s.id, string(s.kind), s.image, s.version, s.platform, s.chip, s.created.Unix(), s.expires.Unix(), string(s.state), s.sealed)
	t.batch.open++
	return err
}

// readSession reads a session as it now is.
func readSession(ctx context.Context, on queries, id string) (*session, error) {
	s := new(session)
	var created, expires int64
	err := on.row(ctx, `SELECT `+sessionColumns+` FROM sessions WHERE id = ?`, id).
		Scan(&s.id, &s.kind, &s.image, &s.version, &s.platform, &s.chip, &created, &expires, &s.state, &s.sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, errNoSession
	}
	if err != nil {
		return nil, err
	}
	s.created, s.expires = time.Unix(created, 0), time.Unix(expires, 0)
	return s, nil
}

// endSession ends an open session and drops its keys. If it was not open any more, that is errStale.
func (t *transaction) endSession(s *session, how state) error {
	n, err := t.exec(`UPDATE sessions SET state = ?, sealed = NULL WHERE id = ? AND state = 'open'`, string(how), s.id)
	if err == nil && n != 1 {
		err = errStale
	}
	t.batch.open--
	return err
}

// sweepLength bounds the sessions that one write ends or forgets: other writes wait for it.
const sweepLength = 250

// expireSessions ends open sessions whose time is over and forgets some that ended long ago. more says that there may be others.
func (t *transaction) expireSessions(now time.Time) (ended int64, more bool, err error) {
	ended, err = t.endOpen(`expires <= ? ORDER BY expires LIMIT ?`, now.Unix(), sweepLength)
	if err != nil {
		return 0, false, err
	}
	old, err := t.forget(`expires <= ? ORDER BY expires`, now.Add(-keepEnded).Unix())
	if err != nil {
		return 0, false, err
	}
	surplus, err := t.forget(`(kind <> 'snp' OR expires <= ?) AND seq <= (SELECT max(seq) FROM sessions) - ? ORDER BY seq`, now.Unix(), maxEnded)
	return ended, max(ended, old, surplus) == sweepLength, err
}

// endOpen ends the open sessions that a condition chooses.
func (t *transaction) endOpen(which string, args ...any) (ended int64, err error) {
	ended, err = t.exec(`UPDATE sessions SET state = 'expired', sealed = NULL WHERE seq IN
		(SELECT seq FROM sessions WHERE state = 'open' AND `+which+`)`, args...)
	t.batch.open -= ended
	return ended, err
}

// batchState is what a batch has read and changed: the number of open sessions, and the end of the last challenge whose session may be
// forgotten, once they are known.
type batchState struct {
	openKnown, forgottenKnown bool
	open, forgotten           int64
}

// makeRoom sees to it that one more session fits under the bound: first those whose time is over end, then the
// oldest.
func (t *transaction) makeRoom(bound int, now time.Time) (ended int64, err error) {
	if !t.batch.openKnown {
		if err := t.row(`SELECT n FROM open_sessions`).Scan(&t.batch.open); err != nil {
			return 0, err
		}
		t.batch.openKnown = true
	}
	if t.batch.open < int64(bound) {
		return 0, nil
	}
	ended, err = t.endOpen(`expires <= ? ORDER BY expires LIMIT ?`, now.Unix(), sweepLength)
	if err != nil {
		return 0, err
	}
	excess := t.batch.open - int64(bound) + 1
	if excess <= 0 {
		return ended, nil
	}
	more, err := t.endOpen(`true ORDER BY seq LIMIT ?`, excess)
	return ended + more, err
}
