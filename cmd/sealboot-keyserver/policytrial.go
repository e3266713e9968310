package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/sev"
)

// trialFlags are the flags of policy test.
type trialFlags struct {
	store                        storeFlags
	policy, sessionPolicy        string
	tik, measurement             string
	api                          sev.API
	digest                       string
	report, certificates, bundle string
	trustRoots                   []string
	address, chip, at            string
	asJSON                       bool
}

// trier judges an attempt without letting anything out.
type trier interface {
	TestPolicy(ctx context.Context, image string, p *keyserver.Policy, attempt keyserver.Attempt) (keyserver.Verdict, error)
}

func (a *app) policyTestCommand() *cobra.Command {
	var f trialFlags
	cmd := &cobra.Command{
		Use:   "test IMAGE (--tik FILE --measurement M --api-major N --api-minor N --build-id N | --digest HEX | --report FILE) --store DIR",
		Short: "Say what would happen to a measurement or a report",
		Long: `test judges as the server would, and says everything that stands in the way; nothing is released, counted or written.
Under --policy it says what that policy would do, before it is set.

The evidence is a launch measurement with its session's integrity key, as sev verify-measurement takes it, or the launch digest
that a machine with SEV or SEV-ES would have, or a SEV-SNP report,
which is verified up to a trusted root by the certificates given (by a server's own roots, with --server, which takes no
measurement: the integrity key stays here). The session's policy is the image's, if --session-policy says no other.
--address, --chip and --time say from where, from which chip, and when the attempt would come.

Exit code 3: there would be no release. --json prints {"released", "digest", "complaints", "reason"}: released is true if it would be.`,
		Example: `  sealboot-keyserver policy test web --policy stricter.json --tik vm_tik.bin --measurement BASE64 --api-major 1 --api-minor 55 --build-id 21 --store keys
  sealboot-keyserver policy test web --report report.bin --certificates chain.pem --store keys`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.tryPolicy(cmd.Context(), args[0], f) },
	}
	f.store.addServer(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.policy, "policy", "", "judge by this policy instead of the image's (- for standard input)")
	flags.StringVar(&f.tik, "tik", "", "file with the session's transport integrity key")
	flags.StringVarP(&f.measurement, "measurement", "m", "", "the launch measurement: base64, or a file")
	flags.StringVar(&f.sessionPolicy, "session-policy", "", "guest policy that the session was made with, a number or names (default: the policy's own)")
	flags.Uint8Var(&f.api.Major, "api-major", 0, "major version of the platform's SEV API (query-sev)")
	flags.Uint8Var(&f.api.Minor, "api-minor", 0, "minor version of the platform's SEV API")
	flags.Uint8Var(&f.api.Build, "build-id", 0, "build of the platform's SEV firmware")
	flags.StringVar(&f.digest, "digest", "", "launch digest that a machine with SEV or SEV-ES would have")
	flags.StringVar(&f.report, "report", "", "file of a SEV-SNP attestation report")
	flags.StringVar(&f.certificates, "certificates", "", "file of the report's certificates: a certificate table, PEM or DER")
	flags.StringVar(&f.bundle, "snp-bundle", "", "file or folder of certificates and revocation lists, as the server's configuration names it")
	flags.StringArrayVar(&f.trustRoots, "trust-root", nil, "trust one more root beside AMD's, as serve does")
	flags.StringVar(&f.address, "address", "", "IP address that would ask")
	flags.StringVar(&f.chip, "chip", "", "chip that would ask, as the audit names it (a report says it itself)")
	flags.StringVar(&f.at, "time", "", "time of the attempt, RFC 3339 (default: now)")
	flags.BoolVar(&f.asJSON, "json", false, "print the answer as JSON")
	cmd.MarkFlagsMutuallyExclusive("measurement", "digest", "report")
	cmd.MarkFlagsOneRequired("measurement", "digest", "report")
	cmd.MarkFlagsRequiredTogether("measurement", "tik")
	cmd.MarkFlagsRequiredTogether("api-major", "api-minor", "build-id")
	for _, local := range []string{"measurement", "session-policy", "snp-bundle", "trust-root", "time"} {
		cmd.MarkFlagsMutuallyExclusive("server", local)
	}
	return cmd
}

func (a *app) tryPolicy(ctx context.Context, image string, f trialFlags) (err error) {
	now := time.Now()
	if f.at != "" {
		if now, err = time.Parse(time.RFC3339, f.at); err != nil {
			return cli.Usagef("--time %q is not a time of RFC 3339, as 2026-05-01T12:00:00Z", f.at)
		}
	}
	if f.report == "" && f.api == (sev.API{}) {
		return cli.Usagef("a measurement and a digest are of some firmware: give --api-major, --api-minor and --build-id")
	}
	var policy *keyserver.Policy
	if f.policy != "" {
		p, err := a.readPolicy(f.policy)
		if err != nil {
			return err
		}
		policy = &p
	}
	if f.store.remote() {
		return a.tryPolicyRemote(ctx, image, policy, f)
	}
	s, err := f.store.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	var attempt keyserver.Attempt
	if f.report != "" {
		attempt, err = f.reported(ctx, now)
	} else {
		judged := policy
		if judged == nil {
			list, err := s.Policies(ctx, image)
			if err != nil {
				return clearNo(err)
			}
			judged = &list[len(list)-1].Policy
		}
		attempt, err = f.launched(judged, now)
	}
	if err != nil {
		return err
	}
	if attempt.SEV != nil {
		defer attempt.SEV.Session.Wipe()
	}
	verdict, err := trier(s).TestPolicy(ctx, image, policy, attempt)
	if err != nil {
		return clearNo(err)
	}
	return a.printVerdict(image, verdict, f.asJSON)
}

// launched makes the attempt of a launch: of its digest, or its measurement.
func (f trialFlags) launched(policy *keyserver.Policy, now time.Time) (keyserver.Attempt, error) {
	if f.digest == "" {
		return f.measured(policy, now)
	}
	attempt := keyserver.Attempt{Time: now, Address: f.address, Chip: f.chip}
	raw, err := hex.DecodeString(f.digest)
	if err != nil || len(raw) != len(sev.Digest{}) {
		return attempt, cli.Usagef("--digest %.128q is not %d hexadecimal digits: one of SEV-SNP comes in a --report", f.digest, 2*len(sev.Digest{}))
	}
	attempt.SEV, err = policy.Expected(sev.Digest(raw), f.api, rand.Reader)
	return attempt, err
}

// measured makes the attempt of a launch measurement.
func (f trialFlags) measured(policy *keyserver.Policy, now time.Time) (keyserver.Attempt, error) {
	attempt := keyserver.Attempt{Time: now, Address: f.address, Chip: f.chip}
	session := new(sev.Session)
	switch {
	case f.sessionPolicy != "":
		var err error
		if session.Policy, err = sev.ParsePolicy(f.sessionPolicy); err != nil {
			return attempt, cli.Usagef("--session-%v", err)
		}
	case policy.SEV != nil:
		session.Policy = policy.SEV.Session()
	}
	key, err := cli.ReadObject(f.tik, "TIK", len(session.TIK))
	if err != nil {
		return attempt, err
	}
	copy(session.TIK[:], key)
	clear(key)
	measurement, err := cli.ReadMeasurement(f.measurement)
	if err != nil {
		session.Wipe()
		return attempt, err
	}
	attempt.SEV = &keyserver.SEVEvidence{Session: session, Measurement: measurement, API: f.api}
	return attempt, nil
}

// reported makes the attempt of a report, which must lead to a trusted root.
func (f trialFlags) reported(ctx context.Context, now time.Time) (keyserver.Attempt, error) {
	report, err := cli.ReadObject(f.report, "attestation report", snp.ReportSize)
	if err != nil {
		return keyserver.Attempt{}, err
	}
	evidence := snp.Evidence{Report: report}
	if f.certificates != "" {
		if evidence.Certificates, err = cli.ReadBounded(f.certificates, snp.MaxCertificates); err != nil {
			return keyserver.Attempt{}, err
		}
	}
	roots, err := cli.TrustedRoots(f.trustRoots)
	if err != nil {
		return keyserver.Attempt{}, err
	}
	verifier, done, err := snp.Open(roots, snp.Sources{Bundle: f.bundle})
	if err != nil {
		return keyserver.Attempt{}, err
	}
	defer done()
	attested, err := verifier.Verify(ctx, evidence, now)
	if err != nil {
		return keyserver.Attempt{}, cli.Refusef("%s", cli.OneLine(err))
	}
	return keyserver.ReportAttempt(attested, attested.Data(), now, f.address), nil
}

func (a *app) printVerdict(image string, v keyserver.Verdict, asJSON bool) error {
	no := v.Err()
	complaints := []string{}
	for _, err := range v.Complaints {
		complaints = append(complaints, cli.OneLine(err))
	}
	if asJSON {
		err := a.printJSON(struct {
			Released   bool     `json:"released"`
			Digest     string   `json:"digest"`
			Complaints []string `json:"complaints"`
			Reason     string   `json:"reason,omitempty"`
		}{no == nil, hex.EncodeToString(v.Digest), complaints, v.Reason})
		if err != nil {
			return err
		}
	} else {
		if len(v.Digest) > 0 {
			fmt.Fprintf(a.stdout, "digest %x is the record's\n", v.Digest)
		}
		for _, text := range complaints {
			fmt.Fprintf(a.stdout, "complaint: %s\n", text)
		}
		if v.Reason != "" {
			fmt.Fprintf(a.stdout, "likely: %s\n", v.Reason)
		}
		if no == nil {
			fmt.Fprintf(a.stdout, "image %s would be released\n", image)
		}
	}
	if no != nil {
		return cli.Refusef("image %s would not be released: complaints: %d", image, len(complaints))
	}
	return nil
}
