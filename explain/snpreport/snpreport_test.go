package snpreport

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	testsev "github.com/google/go-sev-guest/testing"
)

// goodReport is one of go-sev-guest's reports, with what the test looks for.
func goodReport(t testing.TB) []byte {
	t.Helper()
	raw := testsev.TestRawReport([64]byte{1, 2, 3})
	report := raw[:abi.ReportSize]
	for i := range 48 {
		report[0x90+i] = byte(i)
	}
	report[0xc0] = 0xda
	binary.LittleEndian.PutUint64(report[0x08:], 1<<17|1<<19|1<<16|0x011f) // reserved bit, debug, SMT, ABI 1.31
	return report
}

func TestRead(t *testing.T) {
	good := goodReport(t)
	response := make([]byte, responseHeader)
	binary.LittleEndian.PutUint32(response[4:], abi.ReportSize)
	for name, file := range map[string][]byte{
		"report": good, "with certificates": append(bytes.Clone(good), make([]byte, 4096)...), "response": append(response, good...),
	} {
		f, err := Read(bytes.NewReader(file))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !bytes.Equal(f.Measurement, good[0x90:0xc0]) || f.HostData[0] != 0xda || !f.Debug || !f.SMT || f.Migration || f.ABI != "1.31" || f.ReportData[2] != 3 {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

func TestReadRefusals(t *testing.T) {
	good := goodReport(t)
	if _, err := Read(bytes.NewReader(good)); err != nil {
		t.Fatal(err)
	}
	spoiled := func(at int, b byte) []byte { s := bytes.Clone(good); s[at] ^= b; return s }
	for name, file := range map[string][]byte{
		"nothing": nil, "cut": good[:len(good)-1], "text": []byte(strings.Repeat("report ", 400)),
		"version": spoiled(0, 0xff), "policy without its reserved bit": spoiled(0x0a, 1<<1), "reserved bytes": spoiled(0x4c, 1),
		"too long": make([]byte, maxReport+1), "zeros": make([]byte, abi.ReportSize),
	} {
		if f, err := Read(bytes.NewReader(file)); f != nil || !errors.Is(err, ErrReport) {
			t.Errorf("%s: %v, %v", name, f, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(goodReport(f))
	f.Fuzz(func(t *testing.T, file []byte) {
		facts, err := Read(bytes.NewReader(file))
		if (facts == nil) == (err == nil) || facts != nil && len(facts.Measurement) != 48 {
			t.Fatalf("%v, %v", facts, err)
		}
	})
}

// TestParseAsGoSEVGuest spoils every byte of a report, and expects go-sev-guest's reader to say the same.
func TestParseAsGoSEVGuest(t *testing.T) {
	refused := 0
	for _, version := range []byte{2, 3, 5} {
		for _, algorithm := range []byte{1, 0} {
			good := goodReport(t)
			good[0], good[0x34] = version, algorithm
			if version > 2 {
				good[0x188], good[0x189], good[0x18a] = 0x1a, 0x11, 2
			}
			sameAsGoSEVGuest(t, good)
			if _, err := parse(good); err != nil {
				t.Fatal(err)
			}
			for at := 4; at < Size; at++ { // which versions there are is for each reader to say
				for _, bit := range []byte{1, 0x10, 0x80} {
					raw := bytes.Clone(good)
					raw[at] ^= bit
					if !sameAsGoSEVGuest(t, raw) {
						refused++
					}
				}
			}
		}
	}
	if refused < 1000 {
		t.Errorf("only %d reports were refused", refused)
	}
}

func sameAsGoSEVGuest(t *testing.T, raw []byte) (taken bool) {
	t.Helper()
	ours, err := parse(raw)
	theirs, theirErr := abi.ReportToProto(raw)
	if (err == nil) != (theirErr == nil) {
		t.Fatalf("ours: %v; go-sev-guest: %v", err, theirErr)
	}
	if err != nil {
		return false
	}
	p, err := abi.ParseSnpPolicy(theirs.Policy)
	if err != nil {
		t.Fatal(err)
	}
	r := theirs
	want := &Facts{
		Version: r.Version, Measurement: r.Measurement, Policy: r.Policy, ABI: fmt.Sprintf("%d.%d", p.ABIMajor, p.ABIMinor),
		Debug: p.Debug, Migration: p.MigrateMA, SMT: p.SMT, SingleSocket: p.SingleSocket, VMPL: r.Vmpl, GuestSVN: r.GuestSvn,
		FamilyID: r.FamilyId, ImageID: r.ImageId, HostData: r.HostData, ReportData: r.ReportData, IDKeyDigest: r.IdKeyDigest,
		ReportedTCB: fmt.Sprintf("%#016x", r.ReportedTcb), LaunchTCB: fmt.Sprintf("%#016x", r.LaunchTcb),
		Firmware: fmt.Sprintf("%d.%d build %d", r.CurrentMajor, r.CurrentMinor, r.CurrentBuild), ChipID: r.ChipId, CPU: r.Cpuid1EaxFms,
	}
	if !reflect.DeepEqual(ours, want) {
		t.Fatalf("ours: %+v\ngo-sev-guest: %+v", ours, want)
	}
	return true
}
