package sev

import (
	"bytes"
	"crypto/ecdh"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"
)

// hexBytes reads hexadecimal digits in JSON.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// vector is a launch recorded from testdata/make.py.
type vector struct {
	Name         string
	Policy       Policy
	API          [3]uint8
	CA           hexBytes
	PDH          hexBytes
	CertChain    hexBytes `json:"cert_chain"`
	Root         hexBytes
	PDHPrivate   hexBytes `json:"pdh_private"`
	OwnerPrivate hexBytes `json:"owner_private"`
	GODH         hexBytes
	Z            hexBytes
	Nonce        hexBytes
	TEK          hexBytes
	TIK          hexBytes
	IV           hexBytes
	Master       hexBytes
	KEK          hexBytes
	KIK          hexBytes
	Session      hexBytes
	Digest       hexBytes
	Measurement  hexBytes
	Table        hexBytes
	SecretIV     hexBytes `json:"secret_iv"`
	PacketHeader hexBytes `json:"packet_header"`
	Secret       hexBytes
}

func (v vector) api() API { return API{v.API[0], v.API[1], v.API[2]} }

func (v vector) chain(t testing.TB) Chain {
	t.Helper()
	c, err := ParseChain(v.PDH, v.CertChain, v.CA)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// platform gives the recorded platform, with its private key.
func (v vector) platform(t testing.TB) *Platform {
	t.Helper()
	key, err := ecdh.P384().NewPrivateKey(v.PDHPrivate)
	if err != nil {
		t.Fatal(err)
	}
	return &Platform{API: v.api(), Chain: v.chain(t), pdh: key}
}

func vectors(t testing.TB) []vector {
	t.Helper()
	data, err := os.ReadFile("testdata/launch.json")
	if err != nil {
		t.Fatal(err)
	}
	var out []vector
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	if len(out) < 3 {
		t.Fatalf("testdata/launch.json holds %d launches", len(out))
	}
	return out
}

func forEachVector(t *testing.T, test func(t *testing.T, v vector)) {
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) { test(t, v) })
	}
}

func TestRecordedChain(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		c := v.chain(t)
		product, err := c.Verify(RootSet{RootDigest(v.Root): "recorded"})
		if err != nil || product != "recorded" {
			t.Errorf("Verify gives %q, %v", product, err)
		}
		if !bytes.Equal(c.PDH.Encode(), v.PDH) || !bytes.Equal(c.EncodePlatform(), v.CertChain) || !bytes.Equal(c.EncodeCA(), v.CA) {
			t.Error("encoding gives other bytes")
		}
	})
}

func TestRecordedKeyDerivation(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		if got := kdf(v.Z, "sev-master-secret", v.Nonce, 16); !bytes.Equal(got, v.Master) {
			t.Errorf("master secret %x, want %x", got, []byte(v.Master))
		}
		kek, kik := wrapKeys(v.Z, v.Nonce)
		if !bytes.Equal(kek, v.KEK) || !bytes.Equal(kik, v.KIK) {
			t.Errorf("KEK %x, KIK %x, want %x, %x", kek, kik, []byte(v.KEK), []byte(v.KIK))
		}
	})
}

// TestKDFLengths: known answers of a key, label "label", context "context", made with
//
//	python3 -c 'import hmac; h=lambda i,n: hmac.new(bytes(range(16)), i.to_bytes(4,"little")+b"label\0context"+(8*n).to_bytes(4,"little"), "sha256").hexdigest(); [print(n, (h(1,n)+h(2,n))[:2*n]) for n in (16,32,33)]'
func TestKDFLengths(t *testing.T) {
	key := make([]byte, 16)
	for i := range key {
		key[i] = byte(i)
	}
	for size, want := range map[int]string{
		16: "080b8bc19719ae1cf158c342c0d99215",
		32: "c25082ee882421a845374247d2204d86d26a391ac7c14f71bbaf62795da2579b",
		33: "44ce5c4d6905893b5cd554eddb041f692177b5209806d06547d378e6d6ceee677b",
	} {
		if got := hex.EncodeToString(kdf(key, "label", []byte("context"), size)); got != want {
			t.Errorf("%d bytes: %s, want %s", size, got, want)
		}
	}
}

// TestRecordedOwner makes the recorded session again, from the recorded random bytes.
func TestRecordedOwner(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		random := bytes.NewReader(slices.Concat(v.OwnerPrivate, v.Nonce, v.TEK, v.TIK, v.IV))
		s, start, err := NewSession(v.chain(t).PDH, v.Policy, random)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(start.GODH[:], v.GODH) {
			t.Error("another Diffie-Hellman certificate")
		}
		if !bytes.Equal(start.Session[:], v.Session) {
			t.Errorf("session %x, want %x", start.Session, []byte(v.Session))
		}
		if *s != (Session{v.Policy, TEK(v.TEK), TIK(v.TIK)}) {
			t.Error("other keys")
		}
		m, err := ParseMeasurement(v.Measurement)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.VerifyMeasurement(m, v.api(), Digest(v.Digest)); err != nil {
			t.Error(err)
		}
		p, err := s.SealSecret(v.Table, m, bytes.NewReader(v.SecretIV))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.Header[:], v.PacketHeader) || !bytes.Equal(p.Secret, v.Secret) {
			t.Error("another packet")
		}
	})
}

func TestRecordedPlatform(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		g, err := v.platform(t).LaunchStart(v.GODH, v.Session, v.Policy)
		if err != nil {
			t.Fatal(err)
		}
		m, err := g.Measure(Digest(v.Digest), bytes.NewReader(v.Measurement[32:]))
		if err != nil || !bytes.Equal(m.Encode(), v.Measurement) {
			t.Fatalf("measurement %x, %v", m.Encode(), err)
		}
		table, err := g.OpenSecret(v.PacketHeader, v.Secret)
		if err != nil || !bytes.Equal(table, v.Table) {
			t.Errorf("secret %x, %v", table, err)
		}
	})
}

func TestRecordedTable(t *testing.T) {
	forEachVector(t, func(t *testing.T, v vector) {
		table, err := ParseSecretTable(v.Table)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := table.Find(DiskPassphrase); !ok {
			t.Error("no disk passphrase")
		}
		if again, err := table.Encode(3072); err != nil || !bytes.Equal(again, v.Table) {
			t.Errorf("encoded again: %x, %v", again, err)
		}
	})
}
