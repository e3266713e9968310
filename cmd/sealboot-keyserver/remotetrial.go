package main

import (
	"context"
	"encoding/hex"
	"errors"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// tryPolicyRemote has a server judge.
func (a *app) tryPolicyRemote(ctx context.Context, image string, policy *keyserver.Policy, f trialFlags) (err error) {
	trial := wire.Trial{Address: f.address, Chip: f.chip, Digest: f.digest, APIMajor: f.api.Major, APIMinor: f.api.Minor, Build: f.api.Build}
	if policy != nil {
		if trial.Policy, err = policy.Encode(); err != nil {
			return err
		}
	}
	if f.report != "" {
		if trial.Report, err = cli.ReadObject(f.report, "attestation report", snp.ReportSize); err != nil {
			return err
		}
		if f.certificates != "" {
			if trial.Certificates, err = cli.ReadBounded(f.certificates, snp.MaxCertificates); err != nil {
				return err
			}
		}
	}
	c, err := f.store.server.client()
	if err != nil {
		return err
	}
	m, err := c.TestPolicy(ctx, image, trial)
	if err != nil {
		return remoteNo(err)
	}
	v := keyserver.Verdict{Reason: m.Reason}
	if v.Digest, err = hex.DecodeString(m.Digest); err != nil {
		return err
	}
	for _, text := range m.Complaints {
		v.Complaints = append(v.Complaints, errors.New(text))
	}
	if (v.Err() == nil) != (m.Verdict == "release") {
		return errors.New("the server's verdict is at odds with its complaints")
	}
	return a.printVerdict(image, v, f.asJSON)
}
