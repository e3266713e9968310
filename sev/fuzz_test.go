package sev

import (
	"bytes"
	"testing"
)

func FuzzCertificate(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.PDH))
		f.Add([]byte(v.GODH))
		for i := range 3 {
			f.Add([]byte(v.CertChain[i*CertificateSize:][:CertificateSize]))
		}
	}
	tools, _ := recordedTools(f)
	f.Add([]byte(tools.SevctlOCA))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := ParseCertificate(b)
		if err != nil {
			if c != nil {
				t.Error("a certificate beside an error")
			}
			return
		}
		if !bytes.Equal(c.Encode(), b) {
			t.Error("encodes to other bytes")
		}
		by, err := c.signer()
		if err != nil {
			t.Fatalf("parsed, but its key is none: %v", err)
		}
		c.signedBy(by)
	})
}

func FuzzCA(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.CA))
		f.Add(v.chain(f).ARK.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, rest, err := nextCA(b)
		if err != nil {
			if c != nil || rest != nil {
				t.Error("a certificate beside an error")
			}
			return
		}
		if !bytes.Equal(append(c.Encode(), rest...), b) {
			t.Error("encodes to other bytes")
		}
		if _, err := c.KeyDigest(); err != nil {
			t.Error(err)
		}
	})
}

// FuzzLaunchStart gives a platform what a host could: any certificate, session and policy.
func FuzzLaunchStart(f *testing.F) {
	v := vectors(f)[1]
	f.Add([]byte(v.GODH), []byte(v.Session), uint32(v.Policy))
	f.Add([]byte(vectors(f)[0].GODH), []byte(vectors(f)[0].Session), uint32(0))
	p := v.platform(f)
	f.Fuzz(func(t *testing.T, godh, session []byte, policy uint32) {
		g, err := p.LaunchStart(godh, session, Policy(policy))
		recorded := bytes.Equal(session, v.Session) && policy == uint32(v.Policy)
		if err == nil && !recorded {
			t.Error("a session that nobody made is taken")
		}
		if (g == nil) == (err == nil) {
			t.Errorf("%v, %v", g, err)
		}
	})
}

// FuzzSecret gives a measured guest any packet.
func FuzzSecret(f *testing.F) {
	v := vectors(f)[1]
	f.Add([]byte(v.PacketHeader), []byte(v.Secret))
	f.Add([]byte(v.PacketHeader), []byte(v.Secret[:16]))
	p := v.platform(f)
	f.Fuzz(func(t *testing.T, header, secret []byte) {
		g, err := p.LaunchStart(v.GODH, v.Session, v.Policy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Measure(Digest(v.Digest), bytes.NewReader(v.Measurement[32:])); err != nil {
			t.Fatal(err)
		}
		plain, err := g.OpenSecret(header, secret)
		if err == nil && !bytes.Equal(plain, v.Table) {
			t.Error("a packet that nobody made is taken")
		}
	})
}

func FuzzMeasurement(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.Measurement))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := ParseMeasurement(b); err == nil && !bytes.Equal(m.Encode(), b) {
			t.Error("encodes to other bytes")
		}
	})
}

func FuzzStoredSession(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add((&Session{v.Policy, TEK(v.TEK), TIK(v.TIK)}).Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := ParseSession(b); err == nil && !bytes.Equal(s.Encode(), b) {
			t.Error("encodes to other bytes")
		}
	})
}

func FuzzSecretTable(f *testing.F) {
	for _, v := range vectors(f) {
		f.Add([]byte(v.Table))
		f.Add(append(bytes.Clone(v.Table), make([]byte, 64)...))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := ParseSecretTable(b)
		if err != nil {
			if table != nil {
				t.Error("a table beside an error")
			}
			return
		}
		again, err := table.Encode(max(len(b)+16, 32))
		if err != nil {
			if len(b) > MaxSecret {
				return
			}
			t.Fatal(err)
		}
		size := min(len(again), len(b))
		if !bytes.Equal(again[:size], b[:size]) || !allZero(again[size:]) || !allZero(b[size:]) {
			t.Errorf("%x encodes to %x", b, again)
		}
	})
}
