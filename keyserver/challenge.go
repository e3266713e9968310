package keyserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// The way in at run time: a challenge, and the one report that it takes, like a launch session its one measurement.

// OpenChallenge makes a challenge. There is one for every name: an image that is not there, is revoked, or does not open this way in is
// refused with its report, like a wrong digest. Nothing is written down.
func (s *Server) OpenChallenge(r wire.ChallengeRequest) (wire.Challenge, error) {
	now := s.now()
	if !s.images.Allow(r.Image, now) {
		return wire.Challenge{}, refusef(wire.TooManyRequests, "image %s is asked for too often", r.Image)
	}
	c, err := s.store.challenges.make(s.random, r.Image, now, now.Add(s.ttl))
	if err != nil {
		return wire.Challenge{}, fmt.Errorf("make challenge: %w", err)
	}
	return wire.Challenge{ID: c.id, Nonce: c.nonce, Expires: c.expires.UTC()}, nil
}

// Report judges a challenge's report, the only one that it gets, and seals the image's secrets for the guest's one-time key if it holds.
// What Release promises holds here too. While certificates are to be fetched, the challenge stays open and the error is ErrBusy.
func (s *Server) Report(ctx context.Context, from Source, id string, r wire.ReportRequest) (wire.SealedSecret, error) {
	c, err := s.store.challenges.find(id, r.Image)
	if err != nil || !wire.ValidChallengeID(id) {
		return wire.SealedSecret{}, refusef(wire.UnknownSession, "not a challenge of this server for that image")
	}
	shown := shown{key: r.PublicKey, err: errors.New("challenge was over")}
	// Who has no open challenge is not worth a verification.
	fresh := s.now().Before(c.expires) && !s.reported.has(c)
	if fresh {
		shown.attested, shown.err = s.snp.Verify(ctx, snp.Evidence{Report: r.Report, Certificates: r.Certificates}, s.now())
		if errors.Is(shown.err, snp.ErrUnavailable) {
			return wire.SealedSecret{}, fmt.Errorf("release: %w: %w", ErrBusy, shown.err)
		}
	}
	d, err := s.conclude(ctx, func() (*decision, error) {
		look := !fresh // the store is asked only where writing showed that it knows better
		fresh = false
		return s.decideReport(ctx, from, c, shown, look)
	})
	if err != nil {
		if errors.As(err, new(*Refusal)) {
			s.reported.add(c)
		}
		return wire.SealedSecret{}, err
	}
	s.reported.add(c)
	return d.sealed, nil
}

// shown is what a guest showed: a report that was verified, or why it does not hold, and its one-time key, which is a claim.
type shown struct {
	attested *snp.Attested
	err      error
	key      []byte
}

// decideReport is decide, for a challenge. look says that the store may know the challenge.
func (s *Server) decideReport(ctx context.Context, from Source, c *challenge, shown shown, look bool) (*decision, error) {
	now := s.now()
	d := &decision{
		entry: Entry{Time: now, Event: EventRelease, Session: c.session(), Request: from.Request, Source: from.Address, Image: c.image, Kind: string(kindSNP)},
		kept:  &session{id: c.session(), kind: kindSNP, image: c.image, created: c.created, expires: c.expires, state: open},
	}
	var err error
	if look {
		if kept, err := s.store.lookChallenge(ctx, c); err == nil {
			d.kept = kept
		} else if !errors.Is(err, errNoSession) {
			return nil, err
		}
	}
	if d.refusal = ended(d.kept, now); d.refusal == nil {
		if d.found, err = s.store.find(ctx, c.image); err != nil {
			return nil, err
		}
		if d.found.image != nil {
			d.kept.version = d.found.image.version
		}
		if d.sealed, d.refusal, err = s.judgeReport(ctx, d, c, shown); err != nil {
			return nil, err
		}
	}
	d.entry.Version = d.kept.version
	d.refused()
	return d, nil
}

// attested is a verified report with the data that a challenge and a key ask for.
type attested struct {
	*snp.Attested
	data snp.ReportData
	now  time.Time
}

// Launch gives the launch digest.
func (a attested) Launch() []byte {
	digest := a.Attested.Launch()
	return digest[:]
}

// Complaints is everything that the policy has against the report.
func (a attested) Complaints(p snp.Policy) []error { return a.Judge(p, a.data, a.now).Complaints }

// ReportAttempt is the attempt of a guest whose report was verified: what Judge takes. data is what the report must bind; a trial,
// which has no challenge, gives the report's own.
func ReportAttempt(at *snp.Attested, data snp.ReportData, now time.Time, address string) Attempt {
	facts := at.Facts()
	return Attempt{Time: now, Address: address, Platform: fmt.Sprintf("%s/%x", facts.Product, facts.Chip[:8]), Chip: facts.Chip.String(),
		SNP: attested{at, data, now}}
}

// judgeReport holds the report against what the image's owner expects, and seals the secrets. Whatever goes wrong in it is a
// refusal of the same class, but for what anybody can see who has the report: that it does not lead to a trusted root.
func (s *Server) judgeReport(ctx context.Context, d *decision, c *challenge, shown shown) (wire.SealedSecret, *Refusal, error) {
	no := func(class wire.Class, format string, args ...any) (wire.SealedSecret, *Refusal, error) {
		return wire.SealedSecret{}, refusef(class, format, args...), nil
	}
	if shown.err != nil {
		return no(wire.UntrustedPlatform, "%w", shown.err)
	}
	facts := shown.attested.Facts()
	d.entry.Policy, d.entry.API, d.entry.TCB = facts.Policy, facts.Firmware, facts.TCB
	data, err := seal.ReportData(c.nonce, shown.key, c.image)
	if err != nil {
		return no(wire.Refused, "%w", err)
	}
	attempt := ReportAttempt(shown.attested, data, d.entry.Time, d.entry.Source)
	d.entry.Platform, d.entry.Chip = attempt.Platform, attempt.Chip
	about := d.found
	none := about.image == nil || about.image.policy.SNP == nil
	if none {
		about = s.decoy
	} else {
		d.entry.PolicyVersion = about.image.policyVersion
	}
	standing, secrets, secretsErr := about.open(s.store.key)
	if secretsErr == nil {
		defer secrets.wipe()
	}
	verdict := s.store.judge(ctx, standing, about.image.version, attempt)
	d.entry.Digest = hex.EncodeToString(verdict.Digest)
	verdictErr := verdict.Err()
	switch {
	case none && d.found.image != nil:
		return no(wire.Refused, "%w: SNP", ErrNoWay)
	case none:
		return no(wire.Refused, "no image was registered under that name")
	case secretsErr != nil:
		return no(wire.Refused, "%w", secretsErr)
	case later(verdict):
		return wire.SealedSecret{}, nil, fmt.Errorf("%w: %w", ErrBusy, verdictErr)
	case verdictErr != nil:
		return wire.SealedSecret{}, &Refusal{Class: wire.Refused, Cause: verdictErr, Reason: verdict.Reason}, nil
	}
	receipt := s.store.key.receipt(d.kept, secrets.serial)
	defer clear(receipt)
	table, err := secrets.table(about.image.record, receipt)
	if err != nil {
		return no(wire.Refused, "make secret table: %w", err)
	}
	defer clear(table)
	encapsulated, box, err := seal.Seal(shown.key, c.id, c.image, table)
	if err != nil {
		return no(wire.Refused, "%w", err)
	}
	return wire.SealedSecret{Encapsulated: encapsulated, Secret: box}, nil, nil
}

// later says whether the same report may be taken once AMD's key service has answered: nothing else is wrong.
func later(v Verdict) bool {
	for _, err := range v.Complaints {
		if !errors.Is(err, snp.ErrUnavailable) {
			return false
		}
	}
	return len(v.Complaints) > 0 && len(v.Digest) > 0
}
