package main

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// trial is what policy test prints with --json.
type trial struct {
	Released   bool
	Digest     string
	Complaints []string
}

func readTrial(t *testing.T, text string) (v trial) {
	t.Helper()
	noError(t, json.Unmarshal([]byte(text), &v))
	return v
}

// TestTrialOfMeasurement tries a good measurement, and then under a policy that has several things against it.
func TestTrialOfMeasurement(t *testing.T) {
	dir, platform, digest := keyserverStore(t)
	session, start, err := sev.NewSession(platform.Chain.PDH, keyserver.DefaultPolicy().SEV.Session(), rand.Reader)
	noError(t, err)
	guest, err := platform.LaunchStart(start.GODH[:], start.Session[:], session.Policy)
	noError(t, err)
	measured, err := guest.Measure(digest, rand.Reader)
	noError(t, err)
	noError(t, os.WriteFile(dir+"/tik", session.TIK[:], 0o600))
	noError(t, os.WriteFile(dir+"/stricter.json", []byte(`{"sev": {"guest_policy": ["nodbg", "noks", "nosend"], "min_api": "2.0", "min_build": 1},
		"platforms": "any", "not_before": "always", "not_after": "2020-01-01T00:00:00Z", "releases": 1, "networks": ["192.0.2.0/24"]}`), 0o600))
	test := func(want int, more ...string) string {
		t.Helper()
		return command(t, want, append([]string{"policy", "test", "web", "--store", dir + "/keys", "--tik", dir + "/tik",
			"--measurement", base64.StdEncoding.EncodeToString(measured.Encode()), "--api-major", "1", "--api-minor", "55", "--build-id", "21"}, more...)...)
	}
	if says := test(0); !strings.Contains(says, "image web would be released") {
		t.Errorf("it says %s", says)
	}
	if v := readTrial(t, test(0, "--json")); !v.Released || len(v.Digest) != 64 || len(v.Complaints) != 0 {
		t.Errorf("%+v", v)
	}
	stricter := []string{"--policy", dir + "/stricter.json", "--address", "198.51.100.1", "--session-policy", "0xb"}
	v := readTrial(t, test(3, append(stricter, "--json")...))
	all := strings.Join(v.Complaints, "\n")
	for _, want := range []string{"networks that the policy allows", "time window", "session's policy is not the image's", "policy asks for 2.0 build 1"} {
		if !strings.Contains(all, want) {
			t.Errorf("no complaint %q in\n%s", want, all)
		}
	}
	if v.Released || len(v.Complaints) != 4 {
		t.Errorf("%+v", v)
	}
	if v := readTrial(t, test(3, "--json", "--build-id", "22")); v.Released || v.Digest != "" {
		t.Errorf("another build: %+v", v)
	}
	if says := test(3, append(stricter, "--time", "2019-12-31T00:00:00Z")...); strings.Contains(says, "time window") || !strings.Contains(says, "complaint: ") {
		t.Errorf("at another time it says %s", says)
	}
	audit := command(t, 0, "audit", "list", "--store", dir+"/keys")
	if strings.Count(audit, "\n") != 1 {
		t.Errorf("a trial was written down:\n%s", audit)
	}
}

// TestTrialOfReport tries a good report, and then with another policy, another root, and damaged.
func TestTrialOfReport(t *testing.T) {
	dir, _, _ := keyserverStore(t)
	amd := fake.New(snp.Milan)
	digest := snp.Digest{1, 2, 3}
	f, err := os.Open(dir + "/record.json")
	noError(t, err)
	record, err := measure.ReadRecord(f)
	f.Close()
	noError(t, err)
	record.Digests = append(record.Digests, measure.LaunchDigest{Launch: measure.Launch{Mode: measure.SNP, VCPUs: 2, VCPUType: "EPYC-v4"}, Digest: digest[:]})
	text, err := record.Encode()
	noError(t, err)
	noError(t, os.WriteFile(dir+"/record.json", text, 0o600))
	policy := keyserver.DefaultPolicy()
	asks := snp.DefaultPolicy()
	asks.Revocation = snp.Revocation{} // the double has no list
	policy.SEV, policy.SNP = nil, &asks
	text, err = policy.Encode()
	noError(t, err)
	noError(t, os.WriteFile(dir+"/snp.json", text, 0o600))
	command(t, 0, "register", "--record", dir+"/record.json", "--key-file", dir+"/passphrase", "--name", "snp", "--policy", dir+"/snp.json", "--store", dir+"/keys")
	report := amd.Sign(amd.Report(3, digest, snp.ReportData{7}))
	noError(t, os.WriteFile(dir+"/report", report, 0o600))
	noError(t, os.WriteFile(dir+"/table", amd.Table(), 0o600))
	root := ""
	for d := range amd.Roots() {
		root = d.String()
	}
	at := fake.Made.AddDate(0, 3, 0).UTC().Format(time.RFC3339)
	test := func(want int, more ...string) string {
		t.Helper()
		return command(t, want, append([]string{"policy", "test", "snp", "--store", dir + "/keys", "--report", dir + "/report", "--certificates", dir + "/table", "--time", at, "--json"}, more...)...)
	}
	if v := readTrial(t, test(0, "--trust-root", root)); !v.Released || !strings.HasPrefix(v.Digest, "010203") {
		t.Errorf("%+v", v)
	}
	if out := test(3); out != "" { // AMD's roots alone
		t.Errorf("it says %s", out)
	}
	asks.VMPL = []uint8{3}
	if text, err = policy.Encode(); err == nil {
		err = os.WriteFile(dir+"/snp.json", text, 0o600)
	}
	noError(t, err)
	if v := readTrial(t, test(3, "--trust-root", root, "--policy", dir+"/snp.json")); v.Released || len(v.Complaints) == 0 {
		t.Errorf("another VMPL: %+v", v)
	}
	report[0x90] ^= 1
	noError(t, os.WriteFile(dir+"/report", report, 0o600))
	if out := test(3, "--trust-root", root); out != "" {
		t.Errorf("a damaged report: %s", out)
	}
}
