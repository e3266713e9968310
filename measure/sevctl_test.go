package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
)

// TestSevctlStates: sevctl knows hosts before Linux 6.10 alone, and has the same state for their vCPUs.
func TestSevctlStates(t *testing.T) {
	raw, err := os.ReadFile("testdata/vmsa-sevctl.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []struct {
			Family, Model, Stepping uint8
			Firmware, SHA256        string
			CPU                     int
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Cases) != 16 {
		t.Fatalf("%d cases", len(file.Cases))
	}
	for _, c := range file.Cases {
		firmware, err := os.ReadFile(filepath.Join("testdata", c.Firmware))
		if err != nil {
			t.Fatal(err)
		}
		s := Spec{Mode: SEVES, Firmware: firmware, VCPUs: 2, VCPUSignature: Signature(c.Family, c.Model, c.Stepping), OldHostKernel: true}
		for _, old := range []bool{true, false} {
			s.OldHostKernel = old
			state, err := VMSAs(s)
			if err != nil {
				t.Fatal(err)
			}
			sum := sha256.Sum256(state(c.CPU))
			if same := hex.EncodeToString(sum[:]) == c.SHA256; same != old {
				t.Errorf("%+v, before Linux 6.10: %v: the same state: %v", c, old, same)
			}
		}
	}
}
