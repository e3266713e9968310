package sev

import (
	"bytes"
	"crypto/ecdh"
	"encoding/json"
	"os"
	"testing"
)

// sealed is what a tool made for a launch with known keys: the measurement that it expects, and a secret for it.
type sealed struct{ Measurement, Header, Payload hexBytes }

// toolRuns is what sevctl and sev-tool made and said, recorded by testdata/tools.py.
type toolRuns struct {
	Platform struct {
		CA, PDH, Root, Digest hexBytes
		CertChain             hexBytes `json:"cert_chain"`
		PDHPrivate            hexBytes `json:"pdh_private"`
		API                   [3]uint8
	}
	ChainAccepted struct{ Sevctl, Sevtool bool } `json:"chain_accepted"`
	Sessions      []struct {
		Maker                   string
		Policy                  Policy
		GODH, Session, TIK, TEK hexBytes
	}
	Launches []struct {
		Keys            string // who made TIK and TEK
		Policy          Policy
		TIK, TEK        hexBytes
		Sevctl, Sevtool sealed
	}
	SevctlOCA hexBytes `json:"sevctl_oca"`
}

func recordedTools(t testing.TB) (toolRuns, *Platform) {
	t.Helper()
	data, err := os.ReadFile("testdata/tools.json")
	if err != nil {
		t.Fatal(err)
	}
	var r toolRuns
	if err := json.Unmarshal(data, &r); err != nil {
		t.Fatal(err)
	}
	if len(r.Sessions) != 4 || len(r.Launches) != 6 {
		t.Fatalf("%d sessions, %d launches", len(r.Sessions), len(r.Launches))
	}
	chain, err := ParseChain(r.Platform.PDH, r.Platform.CertChain, r.Platform.CA)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdh.P384().NewPrivateKey(r.Platform.PDHPrivate)
	if err != nil {
		t.Fatal(err)
	}
	return r, &Platform{API: API{r.Platform.API[0], r.Platform.API[1], r.Platform.API[2]}, Chain: chain, pdh: key}
}

// TestToolsChain: a chain that both tools accept is one that we do, and one changed byte is refused.
func TestToolsChain(t *testing.T) {
	r, p := recordedTools(t)
	if !r.ChainAccepted.Sevctl || !r.ChainAccepted.Sevtool {
		t.Fatalf("accepted by %+v", r.ChainAccepted)
	}
	roots := RootSet{RootDigest(r.Platform.Root): "recorded"}
	if _, err := p.Chain.Verify(roots); err != nil {
		t.Error(err)
	}
	if _, err := p.Chain.Verify(RootSet{}); err == nil { // sev-tool takes any root under the key ID of AMD's
		t.Error("trusted without a root")
	}
	spoilt := bytes.Clone(r.Platform.CertChain)
	spoilt[signedSize-1] ^= 1 // behind the PEK's key: it means nothing, and is signed
	chain, err := ParseChain(r.Platform.PDH, spoilt, r.Platform.CA)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := chain.Verify(roots); err == nil {
		t.Error("a changed PEK is trusted")
	}
}

// boundTo is the policy that a tool's session is bound to: neither can ask for a version of the platform's firmware. sevctl 0.6.2 takes
// its 16 bits for two of 4, sev-tool cuts the policy to 8 bits. Given to QEMU with the policy that was asked for, they are refused.
func boundTo(maker string, policy Policy) Policy {
	if maker == "sevtool" {
		return policy & 0xff
	}
	return policy&0xffff | policy>>20&0xf<<16 | policy>>16&0xf<<24
}

// TestToolsSessions has the software platform take the sessions of both tools, whose keys it must find.
func TestToolsSessions(t *testing.T) {
	r, p := recordedTools(t)
	dirty := 0
	for _, s := range r.Sessions {
		policy := boundTo(s.Maker, s.Policy)
		if policy != s.Policy {
			if _, err := p.LaunchStart(s.GODH, s.Session, s.Policy); err == nil {
				t.Errorf("%s: a session for policy %v is bound to it", s.Maker, s.Policy)
			}
		}
		guest, err := p.LaunchStart(s.GODH, s.Session, policy)
		if err != nil {
			t.Errorf("%s, policy %v: %v", s.Maker, s.Policy, err)
			continue
		}
		if TIK(s.TIK) != guest.tik || TEK(s.TEK) != guest.tek {
			t.Errorf("%s, policy %v: other keys", s.Maker, s.Policy)
		}
		if _, err := p.LaunchStart(s.GODH, s.Session, policy^NoDebug); err == nil {
			t.Errorf("%s: taken under another policy than %v", s.Maker, s.Policy)
		}
		if !allZero(s.GODH[keyOffset+4+2*coordinateSize : signedSize]) {
			dirty++
		}
	}
	oca, err := ParseCertificate(r.SevctlOCA)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(oca.Encode(), r.SevctlOCA) || allZero(oca.Key[4+2*coordinateSize:]) || dirty == 0 {
		t.Errorf("no certificate of sevctl's has anything behind its key (%d of the sessions'), or it is lost", dirty)
	}
}

// TestToolsLaunches: both tools expect the measurement that we do, also with our keys, and we open what they sealed.
func TestToolsLaunches(t *testing.T) {
	r, p := recordedTools(t)
	for _, l := range r.Launches {
		session := &Session{Policy: l.Policy, TIK: TIK(l.TIK), TEK: TEK(l.TEK)}
		for tool, made := range map[string]sealed{"sevctl": l.Sevctl, "sev-tool": l.Sevtool} {
			m, err := ParseMeasurement(made.Measurement)
			if err != nil {
				t.Fatal(err)
			}
			if err := session.VerifyMeasurement(m, p.API, Digest(r.Platform.Digest)); err != nil {
				t.Errorf("%s, keys of %s: %v", tool, l.Keys, err)
			}
			if err := session.VerifyMeasurement(m, p.API, Digest{}); err == nil {
				t.Errorf("%s: another digest fits", tool)
			}
			plain, err := session.OpenSecret(Packet{Header: [PacketHeaderSize]byte(made.Header), Secret: made.Payload}, m)
			if err != nil {
				t.Errorf("%s, keys of %s: %v", tool, l.Keys, err)
				continue
			}
			table, err := ParseSecretTable(plain)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := table.Find(DiskPassphrase); string(got) != "MARMALADE" {
				t.Errorf("%s: secret %q", tool, got)
			}
		}
	}
}
