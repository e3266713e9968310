package wire

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
)

// The JSON forms. A []byte is base64 with padding (RFC 4648, section 4) in encoding/json.
type (
	sessionRequestJSON struct {
		Image     string `json:"image"`
		PDH       []byte `json:"pdh"`
		CertChain []byte `json:"cert_chain"`
		CA        []byte `json:"ca"`
	}
	sessionJSON struct {
		ID      string `json:"id"`
		Policy  uint32 `json:"policy"`
		DHCert  []byte `json:"dh_cert"`
		Session []byte `json:"session"`
		Expires string `json:"expires"`
	}
	measurementRequestJSON struct {
		Measurement []byte `json:"measurement"`
		APIMajor    uint8  `json:"api_major"`
		APIMinor    uint8  `json:"api_minor"`
		Build       uint8  `json:"build"`
	}
	packetJSON struct {
		PacketHeader []byte `json:"packet_header"`
		Secret       []byte `json:"secret"`
	}
	challengeRequestJSON struct {
		Image string `json:"image"`
	}
	challengeJSON struct {
		ID      string `json:"id"`
		Nonce   []byte `json:"nonce"`
		Expires string `json:"expires"`
	}
	reportRequestJSON struct {
		Image        string `json:"image"`
		Report       []byte `json:"report"`
		Certificates []byte `json:"certificates"`
		PublicKey    []byte `json:"public_key"`
	}
	sealedSecretJSON struct {
		Encapsulated []byte `json:"encapsulated"`
		Secret       []byte `json:"secret"`
	}
	confirmationRequestJSON struct {
		Secret  string `json:"secret"`
		Version string `json:"version"`
		MAC     []byte `json:"mac"`
	}
)

// Encode gives the message as JSON.
func (m SessionRequest) Encode() ([]byte, error) {
	return json.Marshal(sessionRequestJSON(m))
}

// Encode gives the message as JSON.
func (m Session) Encode() ([]byte, error) {
	return json.Marshal(sessionJSON{m.ID, m.Policy, m.DHCert, m.Blob, m.Expires.UTC().Format(time.RFC3339)})
}

// Encode gives the message as JSON.
func (m MeasurementRequest) Encode() ([]byte, error) {
	return json.Marshal(measurementRequestJSON(m))
}

// Encode gives the message as JSON.
func (m Packet) Encode() ([]byte, error) {
	return json.Marshal(packetJSON{m.Header, m.Secret})
}

// Encode gives the message as JSON.
func (m ConfirmationRequest) Encode() ([]byte, error) {
	return json.Marshal(confirmationRequestJSON{m.Secret.String(), confirmationVersion, m.MAC})
}

// DecodeSessionRequest reads a request for a session.
func DecodeSessionRequest(r io.Reader) (SessionRequest, error) {
	o := readObject(r)
	m := SessionRequest{
		Image:     o.text("image"),
		PDH:       o.bytes("pdh", certificateSize, certificateSize),
		CertChain: o.bytes("cert_chain", chainSize, chainSize),
		CA:        o.bytes("ca", minCASize, maxCASize),
	}
	if err := o.end(); err != nil {
		return SessionRequest{}, err
	}
	if err := checkImage(m.Image); err != nil {
		return SessionRequest{}, err
	}
	return m, nil
}

// DecodeSession reads the answer to a request for a session.
func DecodeSession(r io.Reader) (Session, error) {
	o := readObject(r)
	m := Session{
		ID:     o.text("id"),
		Policy: uint32(o.number("policy", 32)),
		DHCert: o.bytes("dh_cert", certificateSize, certificateSize),
		Blob:   o.bytes("session", sessionBlobSize, sessionBlobSize),
	}
	expires := o.text("expires")
	if err := o.end(); err != nil {
		return Session{}, err
	}
	if err := checkSessionID(m.ID); err != nil {
		return Session{}, err
	}
	var err error
	if m.Expires, err = parseTime(expires); err != nil {
		return Session{}, err
	}
	return m, nil
}

// DecodeMeasurementRequest reads a request that brings a measurement.
func DecodeMeasurementRequest(r io.Reader) (MeasurementRequest, error) {
	o := readObject(r)
	m := MeasurementRequest{
		Measurement: o.bytes("measurement", measurementSize, measurementSize),
		APIMajor:    uint8(o.number("api_major", 8)),
		APIMinor:    uint8(o.number("api_minor", 8)),
		Build:       uint8(o.number("build", 8)),
	}
	if err := o.end(); err != nil {
		return MeasurementRequest{}, err
	}
	return m, nil
}

// DecodePacket reads the answer that holds the sealed secret.
func DecodePacket(r io.Reader) (Packet, error) {
	o := readObject(r)
	m := Packet{
		Header: o.bytes("packet_header", packetHeaderSize, packetHeaderSize),
		Secret: o.bytes("secret", 16, maxSecretSize),
	}
	if err := o.end(); err != nil {
		return Packet{}, err
	}
	if len(m.Secret)%16 != 0 {
		return Packet{}, fmt.Errorf("%w: secret of %d bytes is no multiple of 16", ErrMalformed, len(m.Secret))
	}
	return m, nil
}

// DecodeConfirmationRequest reads a guest's confirmation.
func DecodeConfirmationRequest(r io.Reader) (ConfirmationRequest, error) {
	o := readObject(r)
	secret, version := o.text("secret"), o.text("version")
	m := ConfirmationRequest{MAC: o.bytes("mac", sha256.Size, sha256.Size)}
	if err := o.end(); err != nil {
		return ConfirmationRequest{}, err
	}
	var err error
	if m.Secret, err = guid.Parse(secret); err != nil || m.Secret.String() != secret || m.Secret.IsZero() {
		return ConfirmationRequest{}, fmt.Errorf("%w: secret is no GUID in lower case", ErrMalformed)
	}
	if version != confirmationVersion {
		return ConfirmationRequest{}, fmt.Errorf("%w: version is not %q", ErrMalformed, confirmationVersion)
	}
	return m, nil
}
