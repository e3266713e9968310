package psp

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"testing"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/sev"
)

// FuzzInject gives a measured guest without QEMU any arguments: what nobody sealed for it never
// reaches its memory, and every refusal is one that QMP can carry.
func FuzzInject(f *testing.F) {
	platform, err := newPlatform()
	if err != nil {
		f.Fatal(err)
	}
	session, start, err := sev.NewSession(platform.Chain.PDH, ownerPolicy, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	guest, err := platform.LaunchStart(start.GODH[:], start.Session[:], ownerPolicy)
	if err != nil {
		f.Fatal(err)
	}
	measurement, err := guest.Measure(sev.Digest{1}, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	secret := []byte("sixteen bytes ok")
	packet, err := session.SealSecret(secret, measurement, rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	memory, err := newGuestMemory(1 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(memory.close)
	memory.layout = []region{{end: 1<<20 - 1, kind: "ram", ours: true}, {start: 1<<32 - 4096, end: 1<<32 - 1, kind: "romd"}}
	m := &machine{config: Config{Platform: platform}, memory: memory, guest: guest}

	for _, gpa := range []any{nil, 0, 4096, 1<<20 - 8, 1 << 20, 1<<32 - 4096, -1, "0", 1.5, uint64(1<<64 - 1)} {
		args := packetArguments(packet)
		if gpa != nil {
			args["gpa"] = gpa
		}
		seed, err := json.Marshal(args)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(seed)
	}
	f.Add([]byte(`{"packet-header":"AAAA","secret":"AAAA"}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, args []byte) {
		if !json.Valid(args) {
			return // the server would have refused it
		}
		before, after := make([]byte, 1<<20), make([]byte, 1<<20)
		if _, err := memory.ram.WriteAt(before, 0); err != nil {
			t.Fatal(err)
		}
		_, err := m.executeSEV("sev-inject-launch-secret", args)
		if _, err := memory.ram.ReadAt(after, 0); err != nil {
			t.Fatal(err)
		}
		var refused *qmp.Error
		switch {
		case err == nil:
			if bytes.Count(after, secret) != 1 || bytes.Count(after, []byte{0}) != len(after)-len(secret) {
				t.Error("another secret is in memory, or in another place")
			}
		case !errors.As(err, &refused):
			t.Errorf("refused with %v", err)
		case !bytes.Equal(before, after):
			t.Error("a refused secret is in memory")
		}
	})
}
