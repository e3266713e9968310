package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"

	"github.com/google/go-sev-guest/abi"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

const reportImageName = "load-snp"

var reportDigest = snp.Digest{1, 2, 3, 4}

// reportImage registers an image for SEV-SNP guests of any chip.
func (b *bench) reportImage(ctx context.Context) error {
	way := snp.DefaultPolicy()
	way.Revocation = snp.Revocation{} // a list would have to be signed by this run's root
	text, err := json.Marshal(way)
	if err != nil {
		return err
	}
	policy := fmt.Sprintf(`{"snp":%s,"platforms":"any","not_before":"always","not_after":"always","releases":"unlimited","networks":"any"}`, text)
	file := b.Path("snp-policy.json")
	if err := os.WriteFile(file, []byte(policy), 0o600); err != nil {
		return err
	}
	launch := measure.Launch{Mode: measure.SNP, VCPUs: 1, VCPUType: "EPYC-v4"}
	return b.loadImage(ctx, reportImageName, measure.LaunchDigest{Launch: launch, Digest: reportDigest[:]}, "--policy", file)
}

// reports measures whole exchanges with guests that run, each with a report of its own and certificates that are verified each time,
// beside the public-key operations of that: the signature of the report, made and checked, those of VCEK, ASK and ARK,
// and HPKE on both sides.
func (b *bench) reports(ctx context.Context, server *lab.Server, amd *fake.AMD) error {
	certificates := slices.Concat(amd.VCEK().Raw, amd.ASK().Raw, amd.ARK().Raw)
	firmware := func(data [seal.ReportDataSize]byte) []byte { return amd.Sign(amd.Report(3, reportDigest, data)) }
	operations, err := raw(ctx, func(context.Context, int) error { return reportOperations(amd, firmware) })
	if err != nil {
		return err
	}
	challenge, err := wire.ChallengeRequest{Image: reportImageName}.Encode()
	if err != nil {
		return err
	}
	connected, err := connections(ctx, server.URL)
	if err != nil {
		return err
	}
	return underLoad(ctx, "key server, report of a running guest", server.PID(), operations, func(_ context.Context, worker int) error {
		c := connected[worker]
		asked, err := ask(c, "/v1/challenges", challenge, http.StatusCreated, wire.DecodeChallenge)
		if err != nil {
			return err
		}
		key, err := seal.NewKey(rand.Reader)
		if err != nil {
			return err
		}
		data, err := seal.ReportData(asked.Nonce, key.Public(), reportImageName)
		if err != nil {
			return err
		}
		message, err := wire.ReportRequest{Image: reportImageName, Report: firmware(data), Certificates: certificates, PublicKey: key.Public()}.Encode()
		if err != nil {
			return err
		}
		sealed, err := ask(c, "/v1/challenges/"+asked.ID+"/report", message, http.StatusOK, wire.DecodeSealedSecret)
		if err != nil {
			return err
		}
		secrets, err := key.Open(sealed.Encapsulated, sealed.Secret, asked.ID, reportImageName)
		if err != nil {
			return err
		}
		_, err = sev.ParseSecretTable(secrets)
		return err
	})
}

func reportOperations(amd *fake.AMD, firmware func([seal.ReportDataSize]byte) []byte) error {
	key, err := seal.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	report := firmware([seal.ReportDataSize]byte{})
	der, err := abi.ReportToSignatureDER(report)
	if err != nil {
		return err
	}
	signed := func(c, by *x509.Certificate) error {
		return by.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature)
	}
	err = errors.Join(amd.VCEK().CheckSignature(x509.ECDSAWithSHA384, abi.SignedComponent(report), der),
		signed(amd.VCEK(), amd.ASK()), signed(amd.ASK(), amd.ARK()), signed(amd.ARK(), amd.ARK()))
	if err != nil {
		return err
	}
	id := strings.Repeat("0", 80)
	encapsulated, box, err := seal.Seal(key.Public(), id, reportImageName, make([]byte, 200))
	if err != nil {
		return err
	}
	_, err = key.Open(encapsulated, box, id, reportImageName)
	return err
}
