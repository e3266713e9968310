package admin

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

func (h *Handler) setPolicy(c *call, q wire.NewPolicy) (wire.PolicyVersion, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.PolicyVersion{}, err
	}
	p, err := keyserver.ReadPolicy(bytes.NewReader(q.Policy))
	if err != nil {
		return wire.PolicyVersion{}, unacceptable(err)
	}
	version, err := h.Store.ReplacePolicy(c, name, q.Replaces, p, c.now)
	return wire.PolicyVersion{Version: version}, err
}

func (h *Handler) policies(c *call) (wire.Policies, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.Policies{}, err
	}
	list, err := h.Store.Policies(c, name)
	if err != nil {
		return wire.Policies{}, err
	}
	var m wire.Policies
	for _, p := range list {
		digest := sha256.Sum256(p.Document)
		m.Policies = append(m.Policies, wire.Policy{Version: p.Version, ImageVersion: p.ImageVersion, Set: p.Set, SHA256: hex.EncodeToString(digest[:])})
	}
	return m, nil
}

func (h *Handler) policy(c *call) (wire.PolicyDocument, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.PolicyDocument{}, err
	}
	list, err := h.Store.Policies(c, name)
	if err != nil {
		return wire.PolicyDocument{}, err
	}
	for _, p := range list {
		if strconv.FormatInt(p.Version, 10) == c.r.PathValue("version") {
			return wire.PolicyDocument{Version: p.Version, ImageVersion: p.ImageVersion, Set: p.Set, Policy: p.Document}, nil
		}
	}
	return wire.PolicyDocument{}, &refusal{wire.NothingThere, errors.New("image has had no policy of that version")}
}

func (h *Handler) testPolicy(c *call, q wire.Trial) (wire.Verdict, error) {
	name, err := c.imageName()
	if err != nil {
		return wire.Verdict{}, err
	}
	var p *keyserver.Policy
	if len(q.Policy) > 0 {
		read, err := keyserver.ReadPolicy(bytes.NewReader(q.Policy))
		if err != nil {
			return wire.Verdict{}, unacceptable(err)
		}
		p = &read
	}
	attempt, err := h.attempt(c, name, p, q)
	if err != nil {
		return wire.Verdict{}, err
	}
	v, err := h.Store.TestPolicy(c, name, p, attempt)
	if err != nil {
		return wire.Verdict{}, err
	}
	m := wire.Verdict{Verdict: "refuse", Digest: hex.EncodeToString(v.Digest), Reason: v.Reason}
	for _, complaint := range v.Complaints {
		m.Complaints = append(m.Complaints, complaint.Error())
	}
	if evidence := attempt.SEV != nil || attempt.SNP != nil; v.Err() == nil || !evidence && len(v.Complaints) == 0 {
		m.Verdict = "release"
	}
	return m, nil
}

// attempt is that of a machine as the trial has it.
func (h *Handler) attempt(c *call, name string, p *keyserver.Policy, q wire.Trial) (keyserver.Attempt, error) {
	a := keyserver.Attempt{Time: c.now, Address: q.Address, Platform: q.Platform, Chip: q.Chip}
	switch {
	case q.Digest != "" && len(q.Report) > 0:
		return a, unacceptable(errors.New("a machine has a digest or a report, not both"))
	case len(q.Report) > 0 && h.SNP == nil:
		return a, unacceptable(errors.New("this server verifies no reports"))
	case len(q.Report) > 0:
		at, err := h.SNP.Verify(c, snp.Evidence{Report: q.Report, Certificates: q.Certificates}, c.now)
		if errors.Is(err, snp.ErrUnavailable) {
			return a, &refusal{wire.Busy, err}
		}
		if err != nil {
			return a, unacceptable(err)
		}
		return keyserver.ReportAttempt(at, at.Data(), c.now, q.Address), nil
	case q.Digest == "":
		return a, nil
	}
	raw, err := hex.DecodeString(q.Digest)
	if err != nil || len(raw) != len(sev.Digest{}) {
		return a, unacceptable(fmt.Errorf("launch digest is not of %d bytes; one of SEV-SNP comes in a report", len(sev.Digest{})))
	}
	if p == nil {
		d, err := h.Store.Documents(c, name)
		if err != nil {
			return a, err
		}
		own, err := keyserver.DecodePolicy(d.Policy)
		if err != nil {
			return a, err
		}
		p = &own
	}
	a.SEV, err = p.Expected(sev.Digest(raw), sev.API{Major: q.APIMajor, Minor: q.APIMinor, Build: q.Build}, h.Random)
	return a, err
}
