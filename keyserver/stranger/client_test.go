// Package stranger is a host's client as somebody writes it who has keyserver/PROTOCOL.md and AMD's publication 55766 alone: it shares no
// line with the key server, and imports nothing but the standard library (TestImports).
package stranger

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// machine is the host's: what QMP reaches.
type machine interface {
	Certificates() (pdh, chain, ca []byte)
	LaunchStart(dhCert, session []byte, policy uint32) error
	LaunchMeasure() ([]byte, error)
	Version() (major, minor, build uint8)
	LaunchSecret(header, secret []byte) error
}

type problem struct {
	Type, Title, Instance string
	Status                int
}

func (p *problem) Error() string { return p.Type }

// launch goes the whole way of "Exchange".
func launch(server, image string, m machine) error {
	pdh, chain, ca := m.Certificates()
	var session struct {
		ID      string
		Policy  uint32
		DHCert  []byte `json:"dh_cert"`
		Session []byte
		Expires time.Time
	}
	err := post(server+"/v1/sessions", map[string]any{"image": image, "pdh": pdh, "cert_chain": chain, "ca": ca}, 201, &session)
	if err != nil {
		return err
	}
	if len(session.ID) != 32 || len(session.DHCert) != 2084 || len(session.Session) != 128 || session.Expires.IsZero() {
		return errors.New("session is not of its form")
	}
	if err := m.LaunchStart(session.DHCert, session.Session, session.Policy); err != nil {
		return err
	}
	measurement, err := m.LaunchMeasure()
	if err != nil {
		return err
	}
	major, minor, build := m.Version()
	var packet struct {
		Header []byte `json:"packet_header"`
		Secret []byte
	}
	err = post(server+"/v1/sessions/"+session.ID+"/measurement",
		map[string]any{"measurement": measurement, "api_major": major, "api_minor": minor, "build": build}, 200, &packet)
	if err != nil {
		return err
	}
	if len(packet.Header) != 52 || len(packet.Secret) == 0 || len(packet.Secret)%16 != 0 || len(packet.Secret) > 16384 {
		return errors.New("packet is not of its form")
	}
	return m.LaunchSecret(packet.Header, packet.Secret)
}

// post sends a message; an answer that is not the success is a *problem.
func post(url string, message map[string]any, success int, answer any) error {
	body, err := json.Marshal(message) // a []byte becomes base64 with padding
	if err != nil {
		return err
	}
	r, err := http.Post(url, "application/json", bytes.NewReader(body))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	decoder := json.NewDecoder(io.LimitReader(r.Body, 65536))
	decoder.DisallowUnknownFields()
	if r.StatusCode == success && r.Header.Get("Content-Type") == "application/json" {
		return decoder.Decode(answer)
	}
	p := new(problem)
	if r.Header.Get("Content-Type") != "application/problem+json" {
		return fmt.Errorf("status %d", r.StatusCode)
	}
	if err := decoder.Decode(p); err != nil {
		return err
	}
	if p.Status != r.StatusCode || !strings.HasPrefix(p.Type, "urn:sealboot:problem:") || !strings.HasPrefix(p.Instance, "urn:sealboot:request:") {
		return errors.New("problem is not of its form")
	}
	return p
}

// entries reads the secret table in the guest's memory: entries of GUID, length of all of it in 4 bytes little-endian, and data, in a table
// that is itself such an entry.
func entries(memory []byte) (map[string][]byte, error) {
	table, rest, err := entry(memory)
	if err != nil || table.guid != "1e74f542-71dd-4d66-963e-ef4287ff173b" {
		return nil, fmt.Errorf("no table: %v, %d bytes behind", err, len(rest))
	}
	found := map[string][]byte{}
	for rest := table.data; len(rest) > 0; {
		var e item
		if e, rest, err = entry(rest); err != nil {
			return nil, err
		}
		found[e.guid] = e.data
	}
	return found, nil
}

type item struct {
	guid string
	data []byte
}

func entry(b []byte) (item, []byte, error) {
	if len(b) < 20 {
		return item{}, nil, errors.New("entry is too short")
	}
	size := binary.LittleEndian.Uint32(b[16:])
	if size < 20 || uint64(size) > uint64(len(b)) {
		return item{}, nil, errors.New("entry has a wrong length")
	}
	id := fmt.Sprintf("%08x-%04x-%04x-%s-%s", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]),
		hex.EncodeToString(b[8:10]), hex.EncodeToString(b[10:16]))
	return item{id, b[20:size]}, b[size:], nil
}
