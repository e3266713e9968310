package measure

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestSectionsOfNoBytes: edk2's build for microvm starts under SEV and SEV-ES, and says nothing that SEV-SNP could do.
func TestSectionsOfNoBytes(t *testing.T) {
	firmware, err := os.ReadFile("testdata/microvm-4k.fd")
	if err != nil {
		t.Fatal(err)
	}
	s := Spec{Mode: SEVES, Firmware: firmware, VCPUs: 2, VCPUType: "EPYC-v4"}
	if _, err := Digest(s); err != nil {
		t.Fatal(err)
	}
	s.Mode, s.GuestFeatures = SNP, 1
	if _, err := Digest(s); !errors.Is(err, ErrSpec) || !strings.Contains(err.Error(), "not built for SEV-SNP") {
		t.Error(err)
	}
	series, err := NewSeries(firmware)
	if err != nil {
		t.Fatal(err)
	}
	if err := series.Each(s, nil, func(int, []byte) { t.Error("a digest") }); !errors.Is(err, ErrSpec) {
		t.Error(err)
	}
}
