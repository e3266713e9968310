package keyserver

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// TestExchange starts from a launch that gets its secret and spoils one thing at a time.
func TestExchange(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.register("web-es", func(r *Registration) { r.Policy.SEV.Guest |= sev.ES })
	l.register("web-new", func(r *Registration) { r.Policy.SEV.MinAPI = Only(sev.API{Major: 1, Minor: 55, Build: 22}) })
	trusted, second, foreign := platforms()[0], platforms()[1], platforms()[2]
	for _, good := range []string{"web", "second digest", "SEV-ES", "second platform"} {
		t.Run("good/"+good, func(t *testing.T) {
			h := newLaunch(trusted, "web")
			switch good {
			case "second digest":
				h.digest = otherDigest
			case "SEV-ES":
				h.request.Image, h.digest = "web-es", esDigest
			case "second platform":
				h = newLaunch(second, "web")
			}
			packet, err := h.run(t, l.client)
			must(t, err)
			h.unlocked(t, packet)
		})
	}

	for _, bad := range []struct {
		name  string
		class wire.Class
		cause string                        // in the audit
		spoil func(t *testing.T, h *launch) // after the session, before the guest starts
		late  func(t *testing.T, h *launch) // after the measurement
		early func(h *launch)               // before the session
	}{
		{name: "changed digest", class: wire.Refused, cause: "none of the record's digests fits",
			spoil: func(t *testing.T, h *launch) { h.digest[0] ^= 1 }},
		{name: "digest of all zeros", class: wire.Refused, cause: "none of the record's digests fits",
			spoil: func(t *testing.T, h *launch) { h.digest = sev.Digest{} }},
		{name: "digest of SEV-ES under a policy without it", class: wire.Refused, cause: "the digest of mode seves fits, the policy is for mode sev",
			spoil: func(t *testing.T, h *launch) { h.digest = esDigest }},
		{name: "digest of SEV under a policy of SEV-ES", class: wire.Refused, cause: "the digest of mode sev fits, the policy is for mode seves",
			early: func(h *launch) { h.request.Image = "web-es" }},
		{name: "firmware API claimed newer", class: wire.Refused, cause: "the digest fits with firmware API 1.55 build 21",
			spoil: func(t *testing.T, h *launch) { h.api.Minor++ }},
		{name: "firmware API claimed older", class: wire.Refused, cause: "the digest fits with firmware API 1.55 build 21",
			spoil: func(t *testing.T, h *launch) { h.api.Build-- }},
		{name: "firmware older than the policy allows", class: wire.Refused, cause: "older than the policy allows",
			early: func(h *launch) { h.request.Image = "web-new" }},
		{name: "firmware older, claimed new enough", class: wire.Refused, cause: "the digest fits with firmware API 1.55 build 21",
			early: func(h *launch) { h.request.Image = "web-new"; h.api.Build++ }},
		{name: "unknown image", class: wire.Refused, cause: "no image was registered",
			early: func(h *launch) { h.request.Image = "nobody" }},
		{name: "measurement of another session", class: wire.Refused, cause: "none of the record's digests fits",
			late: func(t *testing.T, h *launch) {
				other := newLaunch(trusted, "web")
				must(t, other.begin(t.Context(), l.client))
				other.measure(t)
				h.measured = other.measured
			}},
		{name: "measurement that was used", class: wire.Refused, cause: "none of the record's digests fits",
			late: func(t *testing.T, h *launch) {
				other := newLaunch(trusted, "web")
				_, err := other.run(t, l.client)
				must(t, err)
				h.measured = other.measured
			}},
		{name: "debug guest measured", class: wire.Refused, cause: "the digest fits under policy",
			late: func(t *testing.T, h *launch) { forge(t, l, h, func(s *sev.Session) { s.Policy &^= sev.NoDebug }) }},
		{name: "ES bit measured", class: wire.Refused, cause: "the digest fits under policy",
			late: func(t *testing.T, h *launch) { forge(t, l, h, func(s *sev.Session) { s.Policy |= sev.ES }) }},
		{name: "swapped owner key", class: wire.Refused, cause: "none of the record's digests fits",
			spoil: func(t *testing.T, h *launch) { // the host makes a session of its own for the same guest
				_, start, err := sev.NewSession(h.platform.Chain.PDH, h.policy, rand.Reader)
				must(t, err)
				h.session.DHCert, h.session.Blob = start.GODH[:], start.Session[:]
			}},
		{name: "one bit of the measurement", class: wire.Refused, cause: "none of the record's digests fits",
			late: func(t *testing.T, h *launch) { h.measured.Measurement[31] ^= 0x80 }},
		{name: "one bit of the nonce", class: wire.Refused, cause: "none of the record's digests fits",
			late: func(t *testing.T, h *launch) { h.measured.Measurement[47] ^= 1 }},
		{name: "expired", class: wire.Expired, cause: "session was over",
			late: func(t *testing.T, h *launch) { l.wait(DefaultSessionTTL) }},
		{name: "clock set back", class: wire.Expired, cause: "clock is before",
			late: func(t *testing.T, h *launch) { l.wait(-2 * time.Minute); t.Cleanup(func() { l.wait(2 * time.Minute) }) }},
		{name: "second release", class: wire.Used, cause: "session has released its secret",
			late: func(t *testing.T, h *launch) {
				_, err := h.finish(t.Context(), l.client)
				must(t, err)
			}},
		{name: "second try after a refusal", class: wire.Used, cause: "was refused",
			late: func(t *testing.T, h *launch) {
				good := h.measured
				h.measured.Measurement = make([]byte, 48)
				_, err := h.finish(t.Context(), l.client)
				refusedAs(t, err, wire.Refused)
				h.measured = good
			}},
		{name: "unknown session", class: wire.UnknownSession,
			late: func(t *testing.T, h *launch) { h.session.ID = strings.Repeat("0", 32) }},
		{name: "chain with another root", class: wire.UntrustedPlatform, cause: sev.ErrUntrustedRoot.Error(),
			early: func(h *launch) { *h = *newLaunch(foreign, "web") }},
		{name: "another platform's PDH", class: wire.UntrustedPlatform, cause: "verify certificates",
			early: func(h *launch) { h.request.PDH = second.Chain.PDH.Encode() }},
		{name: "a trusted root over another's chain", class: wire.UntrustedPlatform, cause: "verify certificates",
			early: func(h *launch) { ca := h.request.CA; *h = *newLaunch(foreign, "web"); h.request.CA = ca }},
		{name: "one bit of the PDH's key", class: wire.UntrustedPlatform, cause: "certificates",
			early: func(h *launch) { h.request.PDH = flip(h.request.PDH, 0x20) }},
		{name: "one bit of the PEK's signature", class: wire.UntrustedPlatform, cause: "certificates",
			early: func(h *launch) { h.request.CertChain = flip(h.request.CertChain, 1044+8) }},
		{name: "certificates of zeros", class: wire.UntrustedPlatform, cause: "certificates",
			early: func(h *launch) { h.request.CertChain = make([]byte, len(h.request.CertChain)) }},
	} {
		t.Run(bad.name, func(t *testing.T) {
			h := newLaunch(trusted, "web")
			if bad.early != nil {
				bad.early(h)
			}
			err := h.begin(t.Context(), l.client)
			if err == nil {
				if bad.spoil != nil {
					bad.spoil(t, h)
				}
				h.measure(t)
				if bad.late != nil {
					bad.late(t, h)
				}
				var packet wire.Packet
				packet, err = h.finish(t.Context(), l.client)
				if len(packet.Secret) != 0 || len(packet.Header) != 0 {
					t.Fatal("a packet came out")
				}
			}
			refusedAs(t, err, bad.class)
			if bad.cause != "" {
				if cause := l.lastCause(); !strings.Contains(cause, bad.cause) {
					t.Errorf("audit says %q, want %q in it", cause, bad.cause)
				}
			}
		})
	}
	l.good("web")
}

// forge makes the measurement that a platform would make of the session's guest if it were otherwise: the keys are
// taken out of the store.
func forge(t *testing.T, l *lab, h *launch, change func(*sev.Session)) {
	t.Helper()
	kept, err := readSession(t.Context(), l.store.read, h.session.ID)
	must(t, err)
	keys, err := l.key.session(kept)
	must(t, err)
	measurement := func() []byte { // facts of LAUNCH_MEASURE, AMD SEV API 55766
		nonce := h.measured.Measurement[32:]
		mac := hmac.New(sha256.New, keys.TIK[:])
		mac.Write([]byte{0x04, h.api.Major, h.api.Minor, h.api.Build})
		mac.Write(binary.LittleEndian.AppendUint32(nil, uint32(keys.Policy)))
		mac.Write(h.digest[:])
		mac.Write(nonce)
		return append(mac.Sum(nil), nonce...)
	}
	if !bytes.Equal(measurement(), h.measured.Measurement) {
		t.Fatal("unchanged, the forged measurement is not the platform's")
	}
	change(keys)
	h.measured.Measurement = measurement()
}

// TestPlatformHoldsPolicy is a premise: the session binds the policy, so a host cannot start the guest with another.
func TestPlatformHoldsPolicy(t *testing.T) {
	l := newLab(t)
	l.register("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	for _, other := range []sev.Policy{0, h.policy &^ sev.NoDebug, h.policy | sev.ES} {
		if _, err := h.platform.LaunchStart(h.session.DHCert, h.session.Blob, other); err == nil {
			t.Errorf("platform starts the guest with policy %v", other)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = slices.Clone(b)
	b[at] ^= 1
	return b
}
