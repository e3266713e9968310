package stranger

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"go/parser"
	"go/token"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// software is a machine with a secure processor in software.
type software struct {
	*sev.Platform
	digest sev.Digest
	guest  *sev.Guest
	memory []byte
}

func (s *software) Certificates() (pdh, chain, ca []byte) {
	return s.Chain.PDH.Encode(), s.Chain.EncodePlatform(), s.Chain.EncodeCA()
}

func (s *software) LaunchStart(dhCert, session []byte, policy uint32) (err error) {
	s.guest, err = s.Platform.LaunchStart(dhCert, session, sev.Policy(policy))
	return err
}

func (s *software) LaunchMeasure() ([]byte, error) {
	m, err := s.guest.Measure(s.digest, rand.Reader)
	return m.Encode(), err
}

func (s *software) Version() (major, minor, build uint8) {
	return s.API.Major, s.API.Minor, s.API.Build
}

func (s *software) LaunchSecret(header, secret []byte) (err error) {
	s.memory, err = s.guest.OpenSecret(header, secret)
	return err
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStranger gets a secret by the stranger's client, and with another digest or image none.
func TestStranger(t *testing.T) {
	p, err := sev.NewPlatform(rand.Reader, sev.API{Major: 1, Minor: 55, Build: 21})
	must(t, err)
	raw := make([]byte, 32)
	rand.Read(raw)
	key, err := keyserver.NewKey(raw)
	must(t, err)
	location := filepath.Join(t.TempDir(), "keys")
	must(t, keyserver.CreateStore(t.Context(), location, key, time.Now()))
	store, err := keyserver.OpenStore(t.Context(), location, key, rand.Reader, time.Now())
	must(t, err)
	defer store.Close()
	digest := sev.Digest(sha256.Sum256([]byte("firmware")))
	_, err = store.Register(t.Context(), keyserver.Registration{Name: "web", Policy: keyserver.DefaultPolicy(), Passphrase: []byte("open, sesame"), Record: &measure.Record{
		Version:  measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: sha256.Sum256([]byte("file")), Size: 4 << 20, SecretArea: ovmf.Area{Base: 0x80c000, Size: 3072}},
		Digests:  []measure.LaunchDigest{{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest[:]}},
		Disk:     measure.Disk{UUID: "00000000-0000-4000-8000-000000000001", HeaderPin: sha256.Sum256([]byte("header"))},
		MadeWith: map[string]string{"sealboot": "test"},
	}}, time.Now())
	must(t, err)
	root, err := p.Chain.ARK.KeyDigest()
	must(t, err)
	server, err := keyserver.NewServer(keyserver.Config{Store: store, Roots: sev.RootSet{}.With("test", root), Random: rand.Reader, Now: time.Now, Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	listener := httptest.NewServer(server.Handler())
	defer listener.Close()

	m := &software{Platform: p, digest: digest}
	must(t, launch(listener.URL, "web", m))
	found, err := entries(m.memory)
	must(t, err)
	pin := sha256.Sum256([]byte("header"))
	if string(found["736869e5-84f0-4973-92ec-06879ce3da0b"]) != "open, sesame" || string(found["5ea1b007-6c75-4b73-8d31-5c0a1f5e9d21"]) != string(pin[:]) {
		t.Errorf("guest found %q", found)
	}
	for name, c := range map[string]struct {
		image string
		spoil byte
	}{"another digest": {"web", 1}, "another image": {"nobody", 0}} {
		m := &software{Platform: p, digest: digest}
		m.digest[0] ^= c.spoil
		no := (*problem)(nil)
		if err := launch(listener.URL, c.image, m); !errors.As(err, &no) || no.Type != "urn:sealboot:problem:refused" || m.memory != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestImports holds the stranger's client to the standard library.
func TestImports(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "client_test.go", nil, parser.ImportsOnly)
	must(t, err)
	for _, i := range file.Imports {
		if strings.Contains(i.Path.Value, ".") {
			t.Errorf("it imports %s", i.Path.Value)
		}
	}
}
