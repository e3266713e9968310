package tlsfiles

import (
	"crypto/tls"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/pki"
)

func TestReload(t *testing.T) {
	s := newSite(t)
	s.serve(s.config())
	first := s.serial()
	second := s.renewed(24 * time.Hour)
	if s.serial() != first {
		t.Error("the files are looked at for each connection")
	}
	s.wait(interval)
	if s.serial() != second {
		t.Fatal("the new certificate is not seen")
	}
	if want := s.now().Add(24*time.Hour - interval); !s.files.Expires().Equal(want) {
		t.Errorf("ends at %v, want %v", s.files.Expires(), want)
	}
	if !strings.Contains(s.log.String(), "ends soon") {
		t.Errorf("no word about the end: %s", &s.log)
	}
	// A clock that goes back does not stop the looking.
	third := s.renewed(24 * time.Hour)
	s.wait(-interval)
	if s.serial() != third {
		t.Error("the new certificate is not seen after the clock was set back")
	}
}

// TestReloadKeepsOld: what is of no use changes nothing, is logged once, and what is right again is taken.
func TestReloadKeepsOld(t *testing.T) {
	strange := newSite(t)
	for about, c := range map[string]struct {
		file    string
		content func(s *site) []byte
	}{
		"empty certificate":     {pki.ServerCertificate, func(*site) []byte { return nil }},
		"half a certificate":    {pki.ServerCertificate, func(s *site) []byte { b := s.read(pki.ServerCertificate); return b[:len(b)/2] }},
		"another's certificate": {pki.ServerCertificate, func(*site) []byte { return strange.read(pki.ServerCertificate) }},
		"another's key":         {pki.ServerKey, func(*site) []byte { return strange.read(pki.ServerKey) }},
		"expired": {pki.ServerCertificate, func(s *site) []byte {
			key, err := pki.ReadKey(s.path(pki.ServerKey))
			must(s.t, err)
			old, err := s.ca.Server([]string{"localhost"}, key.Public(), interval, s.now())
			must(s.t, err)
			must(s.t, pki.WriteCertificate(s.path("old"), old))
			return s.read("old")
		}},
		"empty client CA":  {pki.AuthorityCertificate, func(*site) []byte { return []byte("\n") }},
		"key as client CA": {pki.AuthorityCertificate, func(s *site) []byte { return s.read(pki.AuthorityKey) }},
	} {
		t.Run(about, func(t *testing.T) {
			s := newSite(t)
			s.serve(s.config())
			first, good := s.serial(), s.read(c.file)
			s.put(c.file, c.content(s))
			for range 3 {
				s.wait(interval)
				if s.serial() != first {
					t.Fatal("the old certificate is not in use")
				}
				must(t, s.ask(s.as("ann")))
			}
			if n := strings.Count(s.log.String(), "of no use: the old ones stay"); n != 1 {
				t.Errorf("logged %d times: %s", n, &s.log)
			}
			if strings.Contains(s.log.String(), "PRIVATE") {
				t.Errorf("a key is in the log: %s", &s.log)
			}
			s.put(c.file, good)
			second := s.renewed(time.Hour)
			s.wait(interval)
			if s.serial() != second {
				t.Error("files that are right again are not taken")
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		s := newSite(t)
		s.serve(s.config())
		must(t, os.Rename(s.path(pki.ServerKey), s.path("away")))
		s.wait(interval)
		must(t, s.ask(s.client()))
		must(t, os.Rename(s.path("away"), s.path(pki.ServerKey)))
		s.wait(interval)
		must(t, s.ask(s.client()))
	})
	t.Run("key first, then certificate", func(t *testing.T) {
		s := newSite(t)
		s.serve(s.config())
		first, old := s.serial(), s.read(pki.ServerCertificate)
		second := s.renewed(time.Hour)
		cert := s.read(pki.ServerCertificate)
		s.put(pki.ServerCertificate, old)
		s.wait(interval)
		if s.serial() != first {
			t.Error("between the two the old pair is not in use")
		}
		s.put(pki.ServerCertificate, cert)
		s.wait(interval)
		if s.serial() != second {
			t.Error("the new pair is not in use")
		}
	})
}

// TestReloadClientCA: clients of a CA that was taken away are refused.
func TestReloadClientCA(t *testing.T) {
	s := newSite(t)
	s.serve(s.config())
	must(t, s.ask(s.as("ann")))
	strange := newSite(t)
	both := append(s.read(pki.AuthorityCertificate), strange.read(pki.AuthorityCertificate)...)
	other := strange.as("ann")
	other.RootCAs = s.client().RootCAs
	pair := other.Certificates[0]
	other.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	s.put(pki.AuthorityCertificate, both)
	s.wait(interval)
	must(t, s.ask(other))
	must(t, s.ask(s.as("ann")))
	s.put(pki.AuthorityCertificate, strange.read(pki.AuthorityCertificate))
	s.wait(interval)
	must(t, s.ask(other))
	ann := s.as("ann")
	own := ann.Certificates[0]
	ann.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	if err := s.ask(ann); err == nil {
		t.Error("a client of the old CA is let in")
	}
}
