package keyserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// Release judges a session's measurement, the only one that it gets, and seals the image's secrets for the machine
// if it holds. The session's end and the audit entry are on the disk before Release returns, whatever the
// answer: a crash after that loses the packet, but never releases twice. A *Refusal says why not.
//
// It is judged outside of the store's writer, and written only if nothing has changed meanwhile that it rests on.
func (s *Server) Release(ctx context.Context, from Source, id string, r wire.MeasurementRequest) (wire.Packet, error) {
	if !wire.ValidSessionID(id) {
		return wire.Packet{}, refusef(wire.UnknownSession, "not a session's id")
	}
	m, err := sev.ParseMeasurement(r.Measurement)
	if err != nil {
		return wire.Packet{}, &Refusal{Class: wire.Malformed, Cause: err}
	}
	api := sev.API{Major: r.APIMajor, Minor: r.APIMinor, Build: r.Build}
	d, err := s.conclude(ctx, func() (*decision, error) { return s.decide(ctx, from, id, m, api) })
	if err != nil {
		return wire.Packet{}, err
	}
	return wire.Packet{Header: d.packet.Header[:], Secret: d.packet.Secret}, nil
}

// conclude decides and writes what was decided, anew if something changed in between, until one decision stands. Its error is the
// refusal, if that was the decision.
func (s *Server) conclude(ctx context.Context, decide func() (*decision, error)) (*decision, error) {
	for range maxTries {
		d, err := decide()
		if err != nil {
			return nil, fmt.Errorf("release: %w", err)
		}
		if d.refusal != nil && d.refusal.Class == wire.UnknownSession {
			return nil, d.refusal // not for the audit: anybody can make up ids
		}
		err = s.store.write(ctx, func(t *transaction) error { return s.settle(t, d) })
		switch {
		case errors.Is(err, errStale):
			continue
		case err != nil:
			return nil, fmt.Errorf("release: %w", err)
		case d.refusal != nil:
			return nil, d.refusal
		}
		return d, nil
	}
	return nil, fmt.Errorf("release: %w: %w", ErrBusy, errStale)
}

// decision is what is to be done about a session's evidence. It is worth nothing before it is written.
type decision struct {
	kept    *session
	found   *found // what a release rests on
	entry   Entry
	refusal *Refusal          // nil: release
	packet  sev.Packet        // of a launch session
	sealed  wire.SealedSecret // of a challenge
}

// decide reads and judges, and changes nothing. Its errors are those of the store.
func (s *Server) decide(ctx context.Context, from Source, id string, m sev.Measurement, api sev.API) (*decision, error) {
	now := s.now() // the time of the decision
	d := &decision{entry: Entry{Time: now, Event: EventRelease, Session: id, Request: from.Request, Source: from.Address, API: api.String()}.by(ctx)}
	if err := s.look(ctx, d, id); err != nil {
		return nil, err
	}
	if d.refusal == nil {
		d.packet, d.refusal = s.judge(ctx, d, m, api)
	}
	d.refused()
	return d, nil
}

// look finds the session, and the image if the session is still open; a refusal says that it goes no further.
func (s *Server) look(ctx context.Context, d *decision, id string) (err error) {
	d.kept, err = readSession(ctx, s.store.read, id)
	if errors.Is(err, errNoSession) || err == nil && d.kept.kind != kindSEV {
		d.refusal = refusef(wire.UnknownSession, "no such session of this kind")
		return nil
	}
	if err != nil {
		return err
	}
	d.entry.Image, d.entry.Version, d.entry.Platform, d.entry.Chip = d.kept.image, d.kept.version, d.kept.platform, d.kept.chip
	if d.refusal = ended(d.kept, d.entry.Time); d.refusal == nil {
		d.found, err = s.store.find(ctx, d.kept.image)
	}
	return err
}

// refused puts the refusal, if it is one, into the entry.
func (d *decision) refused() {
	if d.refusal != nil {
		d.entry.refuse(d.refusal)
	}
}

// settle writes a decision, or says errStale.
func (s *Server) settle(t *transaction, d *decision) error {
	if d.kept.state == open {
		end := t.endSession
		if d.kept.kind == kindSNP {
			end = t.endChallenge
		}
		if err := end(d.kept, outcome(d.refusal)); err != nil {
			return err
		}
	}
	if d.refusal == nil {
		now := s.now() // it may have waited
		if ended(d.kept, now) != nil || !d.found.image.policy.inWindow(now) {
			return errStale
		}
		if err := t.countRelease(d.found); err != nil {
			return err
		}
	}
	return t.audit(d.entry)
}

// ended says why a session takes no measurement any more.
func ended(s *session, now time.Time) *Refusal {
	switch {
	case s.state == released:
		return refusef(wire.Used, "session has released its secret")
	case s.state == refused:
		return refusef(wire.Used, "session has had a measurement, which was refused")
	case s.state == expired || !now.Before(s.expires):
		return refusef(wire.Expired, "session was over at %s or gave way to newer ones", s.expires.UTC().Format(time.RFC3339))
	case now.Before(s.created.Add(-clockSlack)):
		return refusef(wire.Expired, "clock is before the session's beginning at %s: it was set back", s.created.UTC().Format(time.RFC3339))
	}
	return nil
}

// clockSlack is how far a clock may be set back before open sessions end: they would live too long.
const clockSlack = time.Minute

func outcome(r *Refusal) state {
	switch {
	case r == nil:
		return released
	case r.Class == wire.Expired:
		return expired
	}
	return refused
}

// judge compares the measurement with what the image's owner expects, and seals the secrets. Whatever goes wrong
// in it is a refusal, of the same class, so that the session ends and its sender learns nothing.
func (s *Server) judge(ctx context.Context, d *decision, m sev.Measurement, api sev.API) (sev.Packet, *Refusal) {
	keys, err := s.store.key.session(d.kept)
	if err != nil {
		return sev.Packet{}, refusef(wire.Refused, "open session's keys: %w", err)
	}
	defer keys.Wipe()
	d.entry.Policy, d.entry.Kind = keys.Policy.String(), string(modeOf(keys.Policy))
	about := d.found
	none := d.kept.version == 0 || about.image == nil
	if none {
		about = s.decoy
	} else {
		d.entry.PolicyVersion = about.image.policyVersion
	}
	standing, secrets, secretsErr := about.open(s.store.key)
	if secretsErr == nil {
		defer secrets.wipe()
	}
	verdict := s.store.judge(ctx, standing, about.image.version, Attempt{Time: d.entry.Time, Address: d.entry.Source,
		Platform: d.kept.platform, Chip: d.kept.chip, SEV: &SEVEvidence{Session: keys, Measurement: m, API: api}})
	d.entry.Digest = hex.EncodeToString(verdict.Digest)
	verdictErr := verdict.Err()
	switch {
	case none:
		return sev.Packet{}, refusef(wire.Refused, "no image was registered under that name, or the session was doomed when it was made (see its entry)")
	case secretsErr != nil:
		return sev.Packet{}, &Refusal{Class: wire.Refused, Cause: secretsErr}
	case about.image.version != d.kept.version:
		return sev.Packet{}, refusef(wire.Expired, "session is of version %d, image is now of version %d", d.kept.version, about.image.version)
	case errors.Is(verdictErr, ErrSessionPolicy):
		return sev.Packet{}, refusef(wire.Expired, "the image's policy was changed: %w", verdictErr)
	case verdictErr != nil:
		return sev.Packet{}, &Refusal{Class: wire.Refused, Cause: verdictErr, Reason: verdict.Reason}
	}
	receipt := s.store.key.receipt(d.kept, secrets.serial)
	defer clear(receipt)
	table, err := secrets.table(about.image.record, receipt)
	if err != nil {
		return sev.Packet{}, refusef(wire.Refused, "make secret table: %w", err)
	}
	defer clear(table)
	packet, err := keys.SealSecret(table, m, s.random)
	if err != nil {
		return sev.Packet{}, refusef(wire.Refused, "seal secret: %w", err)
	}
	return packet, nil
}
