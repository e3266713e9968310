package page

import (
	"context"
	"time"
)

// Source is what the page reads. Each method that takes before gives at most limit entries whose Seq is below it, the newest
// first. Nothing in them is secret. Its methods are called by several requests at once.
type Source interface {
	Images(ctx context.Context) ([]Image, error)
	Open(ctx context.Context, limit int) ([]Session, int64, error) // the newest, and how many there are
	Launches(ctx context.Context, before int64, limit int) ([]Entry, error)
	Refusals(ctx context.Context, before int64, limit int) ([]Entry, error)
	Changes(ctx context.Context, before int64, limit int) ([]Entry, error)
	Revocations(ctx context.Context, limit int) ([]Revocation, error) // in force, the newest first
	Audit(ctx context.Context, limit int) (Audit, error)
}

// Image is a registered image.
type Image struct {
	Name          string
	Version       int64
	PolicyVersion int64 // 0: not told
	Registered    time.Time
	Revoked       bool
	Mode, Policy  string
	Digests       []string
}

// Session is an open session.
type Session struct {
	ID, Image, Kind, Platform string
	Version                   int64 // 0: no such image
	Created, Expires          time.Time
}

// Entry is one row of the audit.
type Entry struct {
	Seq                                                int64
	Time                                               time.Time
	Event, Principal, Image, Target, Session           string
	Request, Source, Kind, Platform, Chip, Policy, API string
	Digest, Class, Cause, Reason                       string
	Version, PolicyVersion                             int64
}

// Outcome says in a word how a launch or a request ended.
func (e Entry) Outcome() string {
	switch {
	case e.Class != "":
		return e.Class
	case e.Event == "release":
		return "released"
	}
	return "granted"
}

// Revocation is something that is out of use.
type Revocation struct {
	Kind, Value, Reason string
	Time                time.Time
}

// Audit is the state of the audit, as stored: reading it does not verify it.
type Audit struct {
	Rows        int64
	Hash        string
	PublicKey   string
	Checkpoints []Checkpoint // the newest first
}

// Checkpoint is a signed state of the audit.
type Checkpoint struct {
	Rows int64
	Hash string
	Time time.Time
}
