package sev

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"testing/iotest"
)

// launched is a launch that went well, to be spoilt.
type launched struct {
	platform    *Platform
	session     *Session
	start       LaunchStart
	digest      Digest
	measurement Measurement
	table       []byte
	packet      Packet
}

const testPolicy = NoDebug | NoKeySharing | NoSend

func launch(t *testing.T) (launched, *Guest) {
	t.Helper()
	l := launched{platform: vectors(t)[1].platform(t), digest: Digest{1, 2, 3}}
	var err error
	if l.session, l.start, err = NewSession(l.platform.Chain.PDH, testPolicy, rand.Reader); err != nil {
		t.Fatal(err)
	}
	g := l.guest(t)
	if l.measurement, err = g.Measure(l.digest, rand.Reader); err != nil {
		t.Fatal(err)
	}
	if err := l.session.VerifyMeasurement(l.measurement, l.platform.API, l.digest); err != nil {
		t.Fatal(err)
	}
	if l.table, err = (SecretTable{{DiskPassphrase, []byte("passphrase")}}).Encode(3072); err != nil {
		t.Fatal(err)
	}
	if l.packet, err = l.session.SealSecret(l.table, l.measurement, rand.Reader); err != nil {
		t.Fatal(err)
	}
	return l, g
}

func (l launched) guest(t *testing.T) *Guest {
	t.Helper()
	g, err := l.platform.LaunchStart(l.start.GODH[:], l.start.Session[:], l.session.Policy)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestLaunchStartRefuses(t *testing.T) {
	l, _ := launch(t)
	flip := func(at int) func(*LaunchStart) { return func(s *LaunchStart) { s.Session[at] ^= 1 } }
	for _, c := range []struct {
		name   string
		spoil  func(*LaunchStart)
		policy Policy
		want   Status
	}{
		{"debug allowed", nil, testPolicy &^ NoDebug, StatusBadMeasurement},
		{"another policy", nil, testPolicy | ES, StatusBadMeasurement},
		{"newer firmware wanted", nil, testPolicy.WithMinAPI(2, 0), StatusPolicyFailure},
		{"nonce", flip(0), testPolicy, StatusBadMeasurement},
		{"TEK", flip(16), testPolicy, StatusBadMeasurement},
		{"TIK", flip(47), testPolicy, StatusBadMeasurement},
		{"IV", flip(48), testPolicy, StatusBadMeasurement},
		{"keys' MAC", flip(64), testPolicy, StatusBadMeasurement},
		{"policy's MAC", flip(127), testPolicy, StatusBadMeasurement},
		{"owner's key not on the curve", func(s *LaunchStart) { s.GODH[20] ^= 1 }, testPolicy, StatusInvalidCertificate},
		{"owner's certificate of another use", func(s *LaunchStart) { s.GODH[8] = byte(UsagePEK & 0xff) }, testPolicy, StatusInvalidCertificate},
		{"another owner's key", func(s *LaunchStart) { copy(s.GODH[:], vectors(t)[0].GODH) }, testPolicy, StatusBadMeasurement},
	} {
		t.Run(c.name, func(t *testing.T) {
			start := l.start
			if c.spoil != nil {
				c.spoil(&start)
			}
			if g, err := l.platform.LaunchStart(start.GODH[:], start.Session[:], c.policy); !errors.Is(err, c.want) || g != nil {
				t.Errorf("gives %v, %v, want %v", g, err, c.want)
			}
		})
	}
	t.Run("another platform", func(t *testing.T) {
		if _, err := vectors(t)[2].platform(t).LaunchStart(l.start.GODH[:], l.start.Session[:], testPolicy); !errors.Is(err, StatusBadMeasurement) {
			t.Error(err)
		}
	})
	t.Run("short session", func(t *testing.T) {
		if _, err := l.platform.LaunchStart(l.start.GODH[:], l.start.Session[:127], testPolicy); !errors.Is(err, StatusInvalidLength) {
			t.Error(err)
		}
	})
	t.Run("short certificate", func(t *testing.T) {
		if _, err := l.platform.LaunchStart(l.start.GODH[:2083], l.start.Session[:], testPolicy); !errors.Is(err, StatusInvalidCertificate) {
			t.Error(err)
		}
	})
}

func TestVerifyMeasurementRefuses(t *testing.T) {
	l, _ := launch(t)
	api := l.platform.API
	for _, c := range []struct {
		name   string
		spoil  func(s *Session, m *Measurement, a *API, d *Digest)
		wanted error
	}{
		{"digest", func(_ *Session, _ *Measurement, _ *API, d *Digest) { d[31] ^= 1 }, ErrMeasurement},
		{"MAC", func(_ *Session, m *Measurement, _ *API, _ *Digest) { m.MAC[0] ^= 1 }, ErrMeasurement},
		{"nonce", func(_ *Session, m *Measurement, _ *API, _ *Digest) { m.Nonce[15] ^= 1 }, ErrMeasurement},
		{"major", func(_ *Session, _ *Measurement, a *API, _ *Digest) { a.Major++ }, ErrMeasurement},
		{"minor", func(_ *Session, _ *Measurement, a *API, _ *Digest) { a.Minor++ }, ErrMeasurement},
		{"build", func(_ *Session, _ *Measurement, a *API, _ *Digest) { a.Build-- }, ErrMeasurement},
		{"policy", func(s *Session, _ *Measurement, _ *API, _ *Digest) { s.Policy &^= NoDebug }, ErrMeasurement},
		{"TIK", func(s *Session, _ *Measurement, _ *API, _ *Digest) { s.TIK[0] ^= 1 }, ErrMeasurement},
		{"all zero", func(_ *Session, m *Measurement, _ *API, _ *Digest) { *m = Measurement{} }, ErrMeasurement},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, m, a, d := *l.session, l.measurement, api, l.digest
			c.spoil(&s, &m, &a, &d)
			if err := s.VerifyMeasurement(m, a, d); !errors.Is(err, c.wanted) {
				t.Errorf("gives %v, want %v", err, c.wanted)
			}
		})
	}
	t.Run("firmware older than the policy", func(t *testing.T) {
		// A platform would not have started it: only the right TIK's owner can say so.
		s := Session{Policy: testPolicy.WithMinAPI(1, 56), TIK: l.session.TIK}
		m := Measurement{MAC: measure(s.TIK, api, s.Policy, l.digest, Nonce{})}
		if err := s.VerifyMeasurement(m, api, l.digest); !errors.Is(err, ErrAPI) {
			t.Error(err)
		}
	})
	t.Run("measurement of another launch", func(t *testing.T) {
		other, _ := launch(t)
		if err := l.session.VerifyMeasurement(other.measurement, api, l.digest); !errors.Is(err, ErrMeasurement) {
			t.Error(err)
		}
	})
}

func TestOpenSecretRefuses(t *testing.T) {
	l, g := launch(t)
	for _, c := range []struct {
		name  string
		spoil func(*Packet)
		want  Status
	}{
		{"flags", func(p *Packet) { p.Header[0] ^= 1 }, StatusBadMeasurement},
		{"IV", func(p *Packet) { p.Header[4] ^= 1 }, StatusBadMeasurement},
		{"MAC", func(p *Packet) { p.Header[51] ^= 1 }, StatusBadMeasurement},
		{"secret", func(p *Packet) { p.Secret[0] ^= 1 }, StatusBadMeasurement},
		{"shorter", func(p *Packet) { p.Secret = p.Secret[:16] }, StatusBadMeasurement},
		{"empty", func(p *Packet) { p.Secret = nil }, StatusInvalidLength},
		{"not whole blocks", func(p *Packet) { p.Secret = p.Secret[:15] }, StatusInvalidLength},
		{"too long", func(p *Packet) { p.Secret = make([]byte, MaxSecret+16) }, StatusInvalidLength},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := Packet{l.packet.Header, bytes.Clone(l.packet.Secret)}
			c.spoil(&p)
			if plain, err := g.OpenSecret(p.Header[:], p.Secret); !errors.Is(err, c.want) || plain != nil {
				t.Errorf("gives %x, %v, want %v", plain, err, c.want)
			}
		})
	}
	t.Run("compressed", func(t *testing.T) {
		p := Packet{l.packet.Header, l.packet.Secret}
		p.Header[0] = 1
		mac := packetMAC(l.session.TIK, p, l.measurement)
		copy(p.Header[20:], mac[:])
		if _, err := g.OpenSecret(p.Header[:], p.Secret); !errors.Is(err, StatusUnsupported) {
			t.Error(err)
		}
	})
	t.Run("replayed in a second launch of the session", func(t *testing.T) {
		again := l.guest(t)
		if _, err := again.Measure(l.digest, rand.Reader); err != nil {
			t.Fatal(err)
		}
		if _, err := again.OpenSecret(l.packet.Header[:], l.packet.Secret); !errors.Is(err, StatusBadMeasurement) {
			t.Error(err)
		}
	})
	if plain, err := g.OpenSecret(l.packet.Header[:], l.packet.Secret); err != nil || !bytes.Equal(plain, l.table) {
		t.Errorf("the good packet gives %x, %v", plain, err)
	}
}

func TestStates(t *testing.T) {
	l, _ := launch(t)
	g := l.guest(t)
	open := func() error {
		_, err := g.OpenSecret(l.packet.Header[:], l.packet.Secret)
		return err
	}
	measureIt := func() error {
		_, err := g.Measure(l.digest, rand.Reader)
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
		ok   bool
		then State
	}{
		{"secret before measure", open, false, StateLaunchUpdate},
		{"finish before measure", g.Finish, false, StateLaunchUpdate},
		{"measure", measureIt, true, StateLaunchSecret},
		{"measure again", measureIt, false, StateLaunchSecret},
		{"finish", g.Finish, true, StateRunning},
		{"secret when running", open, false, StateRunning},
		{"finish again", g.Finish, false, StateRunning},
	} {
		err := step.do()
		if step.ok && err != nil || !step.ok && !errors.Is(err, StatusInvalidGuestState) || g.State() != step.then {
			t.Errorf("%s: %v, state %d", step.name, err, g.State())
		}
	}
	if g.tek != (TEK{}) || g.tik != (TIK{}) {
		t.Error("a running guest still has its transport keys")
	}
}

func TestNewSessionRefuses(t *testing.T) {
	pdh := vectors(t)[0].chain(t).PDH
	for _, c := range []struct {
		name string
		pdh  *Certificate
	}{{"nothing", nil}, {"PEK", vectors(t)[0].chain(t).PEK}} {
		var usage *UsageError
		if s, start, err := NewSession(c.pdh, 0, rand.Reader); !errors.As(err, &usage) || s != nil || start != (LaunchStart{}) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	signing := *pdh
	signing.Algorithm = AlgorithmECDSASHA256
	var format *FormatError
	if _, _, err := NewSession(&signing, 0, rand.Reader); !errors.As(err, &format) {
		t.Errorf("a PDH that signs: %v", err)
	}
	broken := errors.New("no more")
	for size := range int64(48 + 16 + 32 + 16) {
		random := iotest.ErrReader(broken)
		if s, start, err := NewSession(pdh, 0, &limited{size, rand.Reader, random}); !errors.Is(err, broken) || s != nil || start != (LaunchStart{}) {
			t.Fatalf("%d random bytes: %v", size, err)
		}
	}
	if _, _, err := NewSession(pdh, 0, zeros{}); err == nil {
		t.Error("a source of zeros gives a key")
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// limited reads some bytes from one reader, then all from the next.
type limited struct {
	left int64
	from interface{ Read([]byte) (int, error) }
	then interface{ Read([]byte) (int, error) }
}

func (l *limited) Read(p []byte) (int, error) {
	if l.left == 0 {
		return l.then.Read(p)
	}
	n, err := l.from.Read(p[:min(int64(len(p)), l.left)])
	l.left -= int64(n)
	return n, err
}

func TestSealSecretRefuses(t *testing.T) {
	l, _ := launch(t)
	for _, size := range []int{0, 15, 17, MaxSecret + 16} {
		if p, err := l.session.SealSecret(make([]byte, size), l.measurement, rand.Reader); err == nil || p.Secret != nil || p.Header != [52]byte{} {
			t.Errorf("%d bytes are sealed", size)
		}
	}
}

func TestStoredSession(t *testing.T) {
	l, _ := launch(t)
	stored := l.session.Encode()
	again, err := ParseSession(stored)
	if err != nil || *again != *l.session {
		t.Fatalf("%v", err)
	}
	var format *FormatError
	for _, bad := range [][]byte{nil, stored[:43], append(bytes.Clone(stored), 0), append([]byte("SEVS\x02"), stored[5:]...)} {
		if s, err := ParseSession(bad); !errors.As(err, &format) || s != nil {
			t.Errorf("%d bytes give %v", len(bad), err)
		}
	}
	l.session.Wipe()
	if l.session.TEK != (TEK{}) || l.session.TIK != (TIK{}) {
		t.Error("Wipe leaves keys")
	}
}

func TestKeysDoNotPrint(t *testing.T) {
	s := Session{Policy: 1, TEK: TEK{0xab, 0xcd}, TIK: TIK{0xab, 0xcd}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%d", "%s"} {
		for _, v := range []any{s, s.TEK, s.TIK, &s} {
			text := fmt.Sprintf(verb, v)
			for _, leak := range []string{"abcd", "ab, cd", "171", "0xab"} {
				if bytes.Contains([]byte(text), []byte(leak)) {
					t.Errorf("%s of %T prints %s", verb, v, text)
				}
			}
		}
	}
	if _, err := json.Marshal(s); err == nil {
		t.Error("a session becomes JSON")
	}
}

func TestPolicy(t *testing.T) {
	p := (NoDebug | ES).WithMinAPI(1, 55)
	if p != 0x37010005 || p.MinAPI() != (API{Major: 1, Minor: 55}) {
		t.Errorf("%#x, %v", uint32(p), p.MinAPI())
	}
	if p.String() != "0x37010005 (NODBG, ES)" {
		t.Errorf("%q", p.String())
	}
	for _, c := range []struct {
		a, oldest API
		want      bool
	}{
		{API{1, 55, 0}, API{1, 55, 0}, true}, {API{1, 54, 0}, API{1, 55, 0}, false},
		{API{2, 0, 0}, API{1, 55, 0}, true}, {API{0, 99, 0}, API{1, 0, 0}, false},
	} {
		if c.a.atLeast(c.oldest) != c.want {
			t.Errorf("%v at least %v", c.a, c.oldest)
		}
	}
}

func TestPlatformStored(t *testing.T) {
	p, err := NewPlatform(rand.Reader, API{1, 55, 21})
	if err != nil {
		t.Fatal(err)
	}
	stored, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParsePlatform(stored)
	if err != nil {
		t.Fatal(err)
	}
	s, start, err := NewSession(p.Chain.PDH, testPolicy, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.LaunchStart(start.GODH[:], start.Session[:], s.Policy); err != nil {
		t.Errorf("the stored platform does not take the session: %v", err)
	}
	if _, err := p.Chain.Verify(AMDRoots()); !errors.Is(err, ErrUntrustedRoot) {
		t.Errorf("a software platform is trusted: %v", err)
	}
	var fields map[string]any
	if err := json.Unmarshal(stored, &fields); err != nil {
		t.Fatal(err)
	}
	other, err := vectors(t)[0].platform(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	var others map[string]any
	if err := json.Unmarshal(other, &others); err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"version", "pdh_key", "pdh", "cert_chain", "ca"} {
		spoilt := map[string]any{}
		for k, v := range fields {
			spoilt[k] = v
		}
		spoilt[field] = others[field]
		if field == "version" {
			spoilt[field] = 2
		}
		b, _ := json.Marshal(spoilt)
		if p, err := ParsePlatform(b); err == nil || p != nil {
			t.Errorf("another platform's %s is taken", field)
		}
	}
}

func TestUnowned(t *testing.T) {
	p := vectors(t)[1].platform(t)
	g, err := p.LaunchStartUnowned(testPolicy, rand.Reader)
	if err != nil || g.State() != StateLaunchUpdate || g.Policy() != testPolicy || g.tik == (TIK{}) {
		t.Errorf("%v, %v", g, err)
	}
	if _, err := p.LaunchStartUnowned(testPolicy.WithMinAPI(9, 0), rand.Reader); !errors.Is(err, StatusPolicyFailure) {
		t.Error(err)
	}
}
