package keyserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/sev"
)

// SetPolicy gives an image another policy, and the policy's version. It counts at once, for open sessions too; those whose
// guest policy it changes are over.
func (s *Store) SetPolicy(ctx context.Context, name string, p Policy, now time.Time) (version int64, err error) {
	return s.ReplacePolicy(ctx, name, 0, p, now)
}

// ReplacePolicy is SetPolicy if the policy that it replaces is of that version; otherwise the error is ErrChanged. 0 stands for whatever
// it is.
func (s *Store) ReplacePolicy(ctx context.Context, name string, replaces int64, p Policy, now time.Time) (version int64, err error) {
	text, err := p.Encode()
	if err != nil {
		return 0, fmt.Errorf("set policy: %w", err)
	}
	err = s.write(ctx, func(t *transaction) error {
		m, err := t.image(name)
		if err != nil {
			return err
		}
		if replaces != 0 && replaces != m.policyVersion {
			return fmt.Errorf("%w: policy is at version %d, not %d", ErrChanged, m.policyVersion, replaces)
		}
		for _, way := range p.Modes() {
			if !hasDigest(m.record, way) {
				return fmt.Errorf("%w: %s", ErrNoDigest, way[0])
			}
		}
		if m.sealed == nil {
			return fmt.Errorf("image is %w: register it again", ErrRevoked)
		}
		secrets, err := t.store.key.vault(m)
		if err != nil {
			return fmt.Errorf("open image's secrets: %w", err)
		}
		defer secrets.wipe()
		m.policyVersion++
		m.policy, m.policyB = p, text
		version = m.policyVersion
		if err := t.writeImage(m, secrets); err != nil {
			return err
		}
		return t.newPolicy(ctx, m, EventPolicy, now)
	})
	if err != nil {
		return 0, fmt.Errorf("set policy: %w", err)
	}
	return version, nil
}

// PolicyVersion is a policy that an image has or had.
type PolicyVersion struct {
	Version      int64     `json:"version"`
	ImageVersion int64     `json:"image_version"`
	Set          time.Time `json:"set"`
	Policy       Policy    `json:"-"`
	Document     []byte    `json:"-"` // as Policy.Encode gives it; the audit has its SHA-256
}

// Policies lists an image's policies, the newest last.
func (s *Store) Policies(ctx context.Context, name string) ([]PolicyVersion, error) {
	rows, err := s.read.rows(ctx, `SELECT version, image_version, policy, made FROM policies WHERE image = ? ORDER BY version`, name)
	if err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	defer rows.Close()
	list := []PolicyVersion{}
	for rows.Next() {
		var v PolicyVersion
		var made int64
		if err := rows.Scan(&v.Version, &v.ImageVersion, &v.Document, &made); err != nil {
			return nil, fmt.Errorf("list policies: %w", err)
		}
		if v.Policy, err = DecodePolicy(v.Document); err != nil {
			return nil, fmt.Errorf("list policies: version %d: %w", v.Version, err)
		}
		v.Set = time.Unix(made, 0).UTC()
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list policies: %w", err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("list policies: %w: %s", ErrNoImage, clean(name))
	}
	return list, nil
}

// TestPolicy says what a release would find: Judge on an image as it now stands, under its own policy or, if p is given, under
// that one. Nothing is released, counted or written. An image that
// is revoked, or whose rows were changed, has that one complaint.
func (s *Store) TestPolicy(ctx context.Context, name string, p *Policy, a Attempt) (Verdict, error) {
	f, err := s.find(ctx, name)
	if err != nil {
		return Verdict{}, fmt.Errorf("test policy: %w", err)
	}
	if f.image == nil {
		return Verdict{}, fmt.Errorf("test policy: %w: %s", ErrNoImage, clean(name))
	}
	about, secrets, err := f.open(s.key)
	if err != nil {
		return Verdict{Complaints: []error{err}}, nil
	}
	secrets.wipe()
	if p != nil {
		if err := p.Validate(); err != nil {
			return Verdict{}, fmt.Errorf("test policy: %w", err)
		}
		about.Policy = *p
	}
	return s.judge(ctx, about, f.image.version, a), nil
}

// Expected is the evidence of a machine that would have the digest, in a session that the server would make under the policy: for a trial.
func (p Policy) Expected(digest sev.Digest, api sev.API, random io.Reader) (*SEVEvidence, error) {
	session, nonce := new(sev.Session), sev.Nonce{}
	if p.SEV != nil {
		session.Policy = p.SEV.Session()
	}
	for _, b := range [][]byte{session.TIK[:], nonce[:]} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("read random bytes: %w", err)
		}
	}
	return &SEVEvidence{Session: session, Measurement: session.Expect(api, digest, nonce), API: api}, nil
}

// judge is Judge, with the reason of a measurement or a report that fits nothing.
func (s *Store) judge(ctx context.Context, about Standing, version int64, a Attempt) Verdict {
	v := Judge(about, a)
	switch err := v.Err(); {
	case errors.Is(err, sev.ErrMeasurement):
		v.Reason = s.cause(ctx, about, version, a.SEV)
	case errors.Is(err, errReportDigest):
		v.Reason = s.reportReason(ctx, about.Image, version, a.SNP.Launch())
	}
	return v
}
