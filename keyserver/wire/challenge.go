package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"time"
)

// The messages of a release at run time, for a guest under SEV-SNP.

// Encode gives the message as JSON.
func (m ChallengeRequest) Encode() ([]byte, error) {
	return json.Marshal(challengeRequestJSON(m))
}

// Encode gives the message as JSON.
func (m Challenge) Encode() ([]byte, error) {
	return json.Marshal(challengeJSON{m.ID, m.Nonce, m.Expires.UTC().Format(time.RFC3339)})
}

// Encode gives the message as JSON.
func (m ReportRequest) Encode() ([]byte, error) {
	if m.Certificates == nil {
		m.Certificates = []byte{} // encoding/json writes null for a nil slice
	}
	return json.Marshal(reportRequestJSON(m))
}

// Encode gives the message as JSON.
func (m SealedSecret) Encode() ([]byte, error) {
	return json.Marshal(sealedSecretJSON(m))
}

// DecodeChallengeRequest reads a request for a challenge.
func DecodeChallengeRequest(r io.Reader) (ChallengeRequest, error) {
	o := readObject(r)
	m := ChallengeRequest{Image: o.text("image")}
	if err := o.end(); err != nil {
		return ChallengeRequest{}, err
	}
	if err := checkImage(m.Image); err != nil {
		return ChallengeRequest{}, err
	}
	return m, nil
}

// DecodeChallenge reads the answer to a request for a challenge.
func DecodeChallenge(r io.Reader) (Challenge, error) {
	o := readObject(r)
	m := Challenge{ID: o.text("id"), Nonce: o.bytes("nonce", nonceSize, nonceSize)}
	expires := o.text("expires")
	if err := o.end(); err != nil {
		return Challenge{}, err
	}
	if err := checkChallengeID(m.ID); err != nil {
		return Challenge{}, err
	}
	var err error
	if m.Expires, err = parseTime(expires); err != nil {
		return Challenge{}, err
	}
	return m, nil
}

// DecodeReportRequest reads a request that brings a report.
func DecodeReportRequest(r io.Reader) (ReportRequest, error) {
	o := readObject(r)
	m := ReportRequest{
		Image:        o.text("image"),
		Report:       o.bytes("report", reportSize, reportSize),
		Certificates: o.bytes("certificates", 0, maxCertificates),
		PublicKey:    o.bytes("public_key", publicKeySize, publicKeySize),
	}
	if err := o.end(); err != nil {
		return ReportRequest{}, err
	}
	if err := checkImage(m.Image); err != nil {
		return ReportRequest{}, err
	}
	return m, nil
}

// DecodeSealedSecret reads the answer that holds the sealed secret.
func DecodeSealedSecret(r io.Reader) (SealedSecret, error) {
	o := readObject(r)
	m := SealedSecret{
		Encapsulated: o.bytes("encapsulated", encapsulatedSize, encapsulatedSize),
		Secret:       o.bytes("secret", sealOverhead+1, sealOverhead+maxSecretSize),
	}
	if err := o.end(); err != nil {
		return SealedSecret{}, err
	}
	return m, nil
}

// parseTime takes a time in the one form that is sent.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UTC().Format(time.RFC3339) != s {
		return time.Time{}, fmt.Errorf("%w: expires is no time of RFC 3339 in whole seconds, UTC", ErrMalformed)
	}
	return t.UTC(), nil
}
