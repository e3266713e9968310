package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-sev-guest/abi"
	testsev "github.com/google/go-sev-guest/testing"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/measure"
)

// TestExplainReport explains the measurement of a report that go-sev-guest makes.
func TestExplainReport(t *testing.T) {
	dir := t.TempDir()
	firmware, err := os.ReadFile("../../measure/testdata/amdsev-64k.fd")
	if err != nil {
		t.Fatal(err)
	}
	spec := measure.Spec{Mode: measure.SNP, Firmware: firmware, VCPUs: 2, VCPUType: "EPYC-Milan", GuestFeatures: 1}
	record, err := measure.NewRecord([]measure.Spec{spec}, measure.Disk{UUID: "c0ffee00-84f0-4973-92ec-06879ce3da0b", HeaderPin: measure.Hash{1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := record.Encode()
	if err != nil {
		t.Fatal(err)
	}
	raw := testsev.TestRawReport([64]byte{1})
	report := raw[:abi.ReportSize]
	for what, features := range map[string]uint64{"expected": 1, "debug swap": 0x21} {
		spec.GuestFeatures = features
		digest, err := measure.Digest(spec)
		if err != nil {
			t.Fatal(err)
		}
		copy(report[0x90:], digest) // MEASUREMENT (SNP ABI, ATTESTATION_REPORT)
		files := map[string][]byte{"record.json": text, "report": report, "fw.fd": firmware}
		for name, data := range files {
			if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args := []string{"explain", "--record", dir + "/record.json", "--report", dir + "/report", "--firmware", dir + "/fw.fd"}
		var out, messages bytes.Buffer
		if code := run(t.Context(), append(args, "--json"), nil, &out, &messages); code != cli.ExitYes {
			t.Fatalf("%s: exit code %d: %s", what, code, &messages)
		}
		var answer struct {
			InRecord    bool `json:"in_record"`
			Differences []struct{ What string }
			Report      struct{ Measurement string }
		}
		if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
			t.Fatal(err)
		}
		if answer.InRecord != (features == 1) || answer.Report.Measurement != hex.EncodeToString(digest) ||
			features != 1 && (len(answer.Differences) != 1 || answer.Differences[0].What != "guest features") {
			t.Errorf("%s: %s", what, &out)
		}
		out.Reset()
		if code := run(t.Context(), args, nil, &out, &messages); code != cli.ExitYes || !strings.Contains(out.String(), "signature not checked") || !strings.Contains(out.String(), "host data ") {
			t.Errorf("%s: exit code %d: %s", what, code, &out)
		}
	}
}
