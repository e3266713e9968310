package e2e

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// changing is a key server in the middle of a change of passphrase, as far as a guest sees one. It judges nobody: what
// a table with both passphrases does in a machine is the question here, not who gets it.
type changing struct {
	*httptest.Server
	new, old, pin []byte

	mu        sync.Mutex
	sessions  map[string]*sev.Session
	keys      map[string][]byte // of receipts
	confirmed []string          // sessions
}

func serveChange(t *testing.T, image lab.Image) *changing {
	t.Helper()
	f, err := os.Open(image.Record())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	record, err := measure.ReadRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	c := &changing{pin: record.Disk.HeaderPin[:], sessions: map[string]*sev.Session{}, keys: map[string][]byte{}}
	answer := func(status int, f func(*http.Request) (message, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			defer c.mu.Unlock()
			m, err := f(r)
			var body []byte
			if err == nil && m != nil {
				body, err = m.Encode()
			}
			if err != nil {
				t.Errorf("%s: %v", r.URL, err)
				status = http.StatusInternalServerError
			}
			w.Header().Set("Content-Type", wire.MediaType)
			w.WriteHeader(status)
			w.Write(body)
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/sessions", answer(http.StatusCreated, c.session))
	mux.HandleFunc("POST /v1/sessions/{id}/measurement", answer(http.StatusOK, c.measurement))
	mux.HandleFunc("POST /v1/sessions/{id}/confirmation", answer(http.StatusNoContent, c.confirmation))
	c.Server = httptest.NewServer(mux)
	t.Cleanup(c.Close)
	return c
}

type message = interface{ Encode() ([]byte, error) }

func (c *changing) session(r *http.Request) (message, error) {
	m, err := wire.DecodeSessionRequest(r.Body)
	if err != nil {
		return nil, err
	}
	pdh, err := sev.ParseCertificate(m.PDH)
	if err != nil {
		return nil, err
	}
	s, start, err := sev.NewSession(pdh, sev.NoDebug|sev.NoKeySharing, rand.Reader)
	if err != nil {
		return nil, err
	}
	id, key := make([]byte, 16), make([]byte, 32)
	rand.Read(id)
	rand.Read(key)
	name := hex.EncodeToString(id)
	c.sessions[name], c.keys[name] = s, key
	return wire.Session{ID: name, Policy: uint32(s.Policy), DHCert: start.GODH[:], Blob: start.Session[:], Expires: time.Now().Add(time.Hour)}, nil
}

func (c *changing) measurement(r *http.Request) (message, error) {
	id := r.PathValue("id")
	m, err := wire.DecodeMeasurementRequest(r.Body)
	if err != nil {
		return nil, err
	}
	measured, err := sev.ParseMeasurement(m.Measurement)
	if err != nil {
		return nil, err
	}
	session, err := hex.DecodeString(id)
	if err != nil {
		return nil, err
	}
	table, err := sev.SecretTable{
		{GUID: sev.DiskPassphrase, Data: c.new},
		{GUID: sev.PreviousPassphrase, Data: c.old},
		{GUID: sev.HeaderPin, Data: c.pin},
		{GUID: sev.ReleaseReceipt, Data: append(session, c.keys[id]...)},
		{GUID: guid.MustParse("e6f5a162-d67f-4750-a67c-5d065f2a9910"), Data: []byte("{}")},
	}.Encode(3072)
	if err != nil {
		return nil, err
	}
	packet, err := c.sessions[id].SealSecret(table, measured, rand.Reader)
	if err != nil {
		return nil, err
	}
	return wire.Packet{Header: packet.Header[:], Secret: packet.Secret}, nil
}

func (c *changing) confirmation(r *http.Request) (message, error) {
	id := r.PathValue("id")
	m, err := wire.DecodeConfirmationRequest(r.Body)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, c.keys[id])
	io.WriteString(mac, "sealboot used 1\x00"+sev.DiskPassphrase.String())
	if m.Secret == sev.DiskPassphrase && bytes.Equal(m.MAC, mac.Sum(nil)) {
		c.confirmed = append(c.confirmed, id)
	}
	return nil, nil
}

// TestRotation boots while the passphrase is being changed: before the disk has the new one, and after. What the agent
// leaves in the guest then does or does not confirm the change.
func TestRotation(t *testing.T) {
	s := theStage(t)
	right, err := os.ReadFile(s.image.Passphrase())
	if err != nil {
		t.Fatal(err)
	}
	c := serveChange(t, s.image)
	launch := func(t *testing.T, new, old []byte) lab.Outcome {
		c.new, c.old = new, old
		return s.launch(t, lab.Machine{Server: c.URL})
	}
	for _, when := range []struct {
		name     string
		new, old []byte
		which    string
		code     int // of confirm
		confirms int
	}{
		{"before the disk is changed", []byte("not yet"), right, "previous", 3, 0},
		{"after", right, []byte("no more"), "new", 0, 1},
	} {
		t.Run(when.name, func(t *testing.T) {
			o := launch(t, when.new, when.old)
			s.wantBoot(t, o)
			if !contains(o.Console, " was opened by the "+when.which+" passphrase") {
				t.Errorf("GRUB did not say which passphrase it was; console:\n%s", o.Console)
			}
			note := s.Path("receipt")
			for line := range strings.Lines(o.Console) {
				if _, text, ok := strings.Cut(line, "guest: receipt "); ok {
					if err := os.WriteFile(note, []byte(strings.TrimSpace(text)+"\n"), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			out, err := s.Sealboot(t.Context(), "confirm", "--receipt", note, "--server", c.URL)
			if err != nil || out.Code != when.code {
				t.Errorf("confirm: exit code %d, want %d: %v, %s", out.Code, when.code, err, out.Stderr)
			}
			if len(c.confirmed) != when.confirms {
				t.Errorf("confirmed: %v", c.confirmed)
			}
		})
	}
	t.Run("neither is the disk's", func(t *testing.T) {
		s.wantStopped(t, launch(t, []byte("not yet"), []byte("no more")), "wrong passphrase: neither the new nor the previous one opens the disk")
	})
}
