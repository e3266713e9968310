package snpreport

import (
	"bytes"
	"encoding/binary"
	"errors"
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
