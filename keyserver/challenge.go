package keyserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// The way in at run time: a challenge is a session without a platform, which its report names. It takes one report, like a
// launch session its one measurement.

// OpenChallenge makes a challenge. There is one for every name: an image that is not there, is revoked, or does not open this way in is
// refused with its report, like a wrong digest.
func (s *Server) OpenChallenge(ctx context.Context, from Source, r wire.ChallengeRequest) (wire.Challenge, error) {
	now := s.now()
	if !s.images.Allow(r.Image, now) {
		return wire.Challenge{}, refusef(wire.TooManyRequests, "image %s is asked for too often", r.Image)
	}
	entry := Entry{Time: now, Event: EventSession, Request: from.Request, Source: from.Address, Image: r.Image, Kind: string(kindSNP)}
	f, err := s.store.find(ctx, r.Image)
	if err != nil {
		return wire.Challenge{}, fmt.Errorf("make challenge: %w", err)
	}
	var version int64
	if f.image != nil {
		version = f.image.version
		entry.Version, entry.PolicyVersion = version, f.image.policyVersion
	} else {
		entry.Cause = "image is not registered: its report will be refused"
	}
	random := make([]byte, 16+seal.NonceSize)
	if _, err := io.ReadFull(s.random, random); err != nil {
		return wire.Challenge{}, fmt.Errorf("make challenge: read random bytes: %w", err)
	}
	id, nonce := random[:16], random[16:]
	kept := &session{id: hex.EncodeToString(id), kind: kindSNP, image: r.Image, version: version,
		created: now, expires: now.Add(s.ttl).Truncate(time.Second), state: open}
	if kept.sealed, err = s.store.key.seal(s.random, nonce, kept.purpose()...); err != nil {
		return wire.Challenge{}, fmt.Errorf("make challenge: %w", err)
	}
	entry.Session = kept.id
	if err := s.store.write(ctx, func(t *transaction) error { return s.insert(t, kept, entry) }); err != nil {
		return wire.Challenge{}, fmt.Errorf("make challenge: %w", err)
	}
	return wire.Challenge{ID: kept.id, Nonce: nonce, Expires: kept.expires.UTC()}, nil
}

// Report judges a challenge's report, the only one that it gets, and seals the image's secrets for the guest's one-time key if it holds.
// What Release promises holds here too. While certificates are to be fetched, the challenge stays open and the error is ErrBusy.
func (s *Server) Report(ctx context.Context, from Source, id string, r wire.ReportRequest) (wire.SealedSecret, error) {
	if !wire.ValidSessionID(id) {
		return wire.SealedSecret{}, refusef(wire.UnknownSession, "not a challenge's id")
	}
	// Who has no open challenge is not worth a verification.
	d := &decision{entry: Entry{Time: s.now()}}
	if err := s.lookSession(ctx, d, id, kindSNP); err != nil {
		return wire.SealedSecret{}, fmt.Errorf("release: %w", err)
	}
	shown := shown{key: r.PublicKey, err: errors.New("challenge was over")}
	if d.refusal == nil {
		shown.attested, shown.err = s.snp.Verify(ctx, snp.Evidence{Report: r.Report, Certificates: r.Certificates}, s.now())
		if errors.Is(shown.err, snp.ErrUnavailable) {
			return wire.SealedSecret{}, fmt.Errorf("release: %w: %w", ErrBusy, shown.err)
		}
	}
	d, err := s.conclude(ctx, func() (*decision, error) { return s.decideReport(ctx, from, id, shown) })
	if err != nil {
		return wire.SealedSecret{}, err
	}
	return d.sealed, nil
}

// shown is what a guest showed: a report that was verified, or why it does not hold, and its one-time key, which is a claim.
type shown struct {
	attested *snp.Attested
	err      error
	key      []byte
}

// decideReport is decide, for a challenge.
func (s *Server) decideReport(ctx context.Context, from Source, id string, shown shown) (*decision, error) {
	d := &decision{entry: Entry{Time: s.now(), Event: EventRelease, Session: id, Request: from.Request, Source: from.Address, Kind: string(kindSNP)}}
	if err := s.look(ctx, d, id, kindSNP); err != nil {
		return nil, err
	}
	if d.refusal == nil {
		var err error
		if d.sealed, d.refusal, err = s.judgeReport(ctx, d, shown); err != nil {
			return nil, err
		}
	}
	d.refused()
	return d, nil
}

// reported is a verified report with the data that a challenge and a key ask for.
type reported struct {
	*snp.Attested
	data snp.ReportData
	now  time.Time
}

// Launch gives the launch digest.
func (r reported) Launch() []byte {
	digest := r.Attested.Launch()
	return digest[:]
}

// Complaints is everything that the policy has against the report.
func (r reported) Complaints(p snp.Policy) []error { return r.Judge(p, r.data, r.now).Complaints }

// ReportAttempt is the attempt of a guest whose report was verified: what Judge takes. data is what the report must bind; a trial,
// which has no challenge, gives the report's own.
func ReportAttempt(at *snp.Attested, data snp.ReportData, now time.Time, address string) Attempt {
	facts := at.Facts()
	return Attempt{Time: now, Address: address, Platform: fmt.Sprintf("%s/%x", facts.Product, facts.Chip[:8]), Chip: facts.Chip.String(),
		SNP: reported{at, data, now}}
}

// judgeReport holds the report against what the image's owner expects, and seals the secrets. Whatever goes wrong in it is a
// refusal of the same class, but for what anybody can see who has the report: that it does not lead to a trusted root.
func (s *Server) judgeReport(ctx context.Context, d *decision, shown shown) (wire.SealedSecret, *Refusal, error) {
	no := func(class wire.Class, format string, args ...any) (wire.SealedSecret, *Refusal, error) {
		return wire.SealedSecret{}, refusef(class, format, args...), nil
	}
	if shown.err != nil {
		return no(wire.UntrustedPlatform, "%w", shown.err)
	}
	facts := shown.attested.Facts()
	d.entry.Policy, d.entry.API, d.entry.TCB = facts.Policy, facts.Firmware, facts.TCB
	nonce, err := s.store.key.open(d.kept.sealed, d.kept.purpose()...)
	if err != nil {
		return no(wire.Refused, "open challenge's nonce: %w", err)
	}
	data, err := seal.ReportData(nonce, shown.key, d.kept.image)
	if err != nil {
		return no(wire.Refused, "%w", err)
	}
	attempt := ReportAttempt(shown.attested, data, d.entry.Time, d.entry.Source)
	d.entry.Platform, d.entry.Chip = attempt.Platform, attempt.Chip
	about := d.found
	none := d.kept.version == 0 || about.image == nil || about.image.policy.SNP == nil
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
	case none && d.kept.version != 0 && d.found.image != nil:
		return no(wire.Refused, "%w: SNP", ErrNoWay)
	case none:
		return no(wire.Refused, "no image was registered under that name")
	case secretsErr != nil:
		return no(wire.Refused, "%w", secretsErr)
	case about.image.version != d.kept.version:
		return no(wire.Expired, "challenge is of version %d, image is now of version %d", d.kept.version, about.image.version)
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
	encapsulated, box, err := seal.Seal(shown.key, d.kept.id, d.kept.image, table)
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
