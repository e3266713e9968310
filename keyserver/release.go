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
func (s *Server) Release(ctx context.Context, from Source, id string, r wire.MeasurementRequest) (wire.Packet, error) {
	if !wire.ValidSessionID(id) {
		return wire.Packet{}, refusef(wire.UnknownSession, "not a session's id")
	}
	m, err := sev.ParseMeasurement(r.Measurement)
	if err != nil {
		return wire.Packet{}, &Refusal{Class: wire.Malformed, Cause: err}
	}
	api := sev.API{Major: r.APIMajor, Minor: r.APIMinor, Build: r.Build}
	entry := Entry{Event: EventRelease, Session: id, Request: from.Request, Source: from.Address, API: api.String()}
	var packet sev.Packet
	var refusal *Refusal
	err = s.store.write(ctx, func(t *transaction) error {
		entry.Time = s.now() // the time of the decision, not of the wait for it
		kept, err := t.session(id)
		if errors.Is(err, errNoSession) {
			refusal = &Refusal{Class: wire.UnknownSession, Cause: err}
			return nil // not for the audit: anybody can make up ids
		}
		if err != nil {
			return err
		}
		entry.Image, entry.Version, entry.Platform = kept.image, kept.version, kept.platform
		if refusal = ended(kept, entry.Time); refusal == nil {
			packet, refusal = s.judge(t, kept, m, api, &entry)
		}
		if kept.state == open {
			if err := t.endSession(id, outcome(refusal)); err != nil {
				return err
			}
		}
		if refusal != nil {
			entry.Class, entry.Cause = refusal.Class, refusal.Cause.Error()
		}
		return t.audit(entry)
	})
	switch {
	case err != nil:
		return wire.Packet{}, fmt.Errorf("release: %w", err)
	case refusal != nil:
		return wire.Packet{}, refusal
	}
	return wire.Packet{Header: packet.Header[:], Secret: packet.Secret}, nil
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
func (s *Server) judge(t *transaction, kept *session, m sev.Measurement, api sev.API, entry *Entry) (sev.Packet, *Refusal) {
	keys, err := s.store.key.session(kept)
	if err != nil {
		return sev.Packet{}, refusef(wire.Refused, "open session's keys: %w", err)
	}
	defer keys.Wipe()
	entry.Policy = keys.Policy.String()
	img, err := t.image(kept.image)
	none := kept.version == 0 || errors.Is(err, ErrNoImage)
	if none {
		img, err = s.decoy.again()
	}
	if err != nil {
		return sev.Packet{}, refusef(wire.Refused, "read image: %w", err)
	}
	digest, ok := match(keys, m, api, digests(img.record, img.policy.Mode()))
	cause := ""
	if !ok {
		cause = t.cause(keys, m, api, img)
	}
	switch {
	case none:
		return sev.Packet{}, refusef(wire.Refused, "no image was registered under that name")
	case img.revoked:
		return sev.Packet{}, refusef(wire.Refused, "image is revoked")
	case img.version != kept.version:
		return sev.Packet{}, refusef(wire.Expired, "session is of version %d, image is now of version %d", kept.version, img.version)
	case keys.Policy != img.policy.Guest:
		return sev.Packet{}, refusef(wire.Refused, "session's policy is not the image's")
	case !ok:
		return sev.Packet{}, refusef(wire.Refused, "%w: %s", sev.ErrMeasurement, cause)
	}
	entry.Digest = hex.EncodeToString(digest[:])
	if !img.policy.allows(api) { // confirmed by now: it is in the measurement's MAC
		return sev.Packet{}, refusef(wire.Refused, "%w: %v, policy asks for %v", sev.ErrAPI, api, img.policy.MinAPI)
	}
	return s.sealSecrets(t, img, keys, m)
}

// match tries every digest, whichever fits: the time that it takes tells nothing about the one that did.
func match(keys *sev.Session, m sev.Measurement, api sev.API, digests []sev.Digest) (fits sev.Digest, ok bool) {
	for _, d := range digests {
		err := keys.VerifyMeasurement(m, api, d)
		if err == nil || errors.Is(err, sev.ErrAPI) { // the digest fits; the version is judged by the image's policy
			fits, ok = d, true
		}
	}
	return fits, ok
}

func (s *Server) sealSecrets(t *transaction, img *image, keys *sev.Session, m sev.Measurement) (sev.Packet, *Refusal) {
	passphrase, err := t.passphrase(img)
	if err != nil {
		return sev.Packet{}, refusef(wire.Refused, "open image's secret: %w", err)
	}
	defer clear(passphrase)
	table, err := secretTable(img.record, passphrase)
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
