package measure

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
)

// vector is one case of testdata/measure.json: the flags of sev-snp-measure, and what it said.
type vector struct {
	Args []string `json:"args"`
	RC   int      `json:"rc"`
	Out  string   `json:"out"`
	Err  string   `json:"err"`
}

// covered counts the cases of testdata/measure.json that must match, by mode, and whether the
// reference computes or refuses. A mode that is not listed here fails the test.
var covered = map[Mode]struct{ computed, refused int }{
	SEV:         {4, 1},
	SEVES:       {12, 1},
	SNP:         {24, 2},
	SNPOVMFHash: {1, 0},
}

// refusals are the reference's messages and our errors for them.
var refusals = map[string]error{
	"Error: Kernel specified but OVMF doesn't support kernel/initrd/cmdline measurement":  ErrNoKernelHashes,
	"Error: Kernel specified but OVMF metadata doesn't include SNP_KERNEL_HASHES section": ErrNoKernelHashes,
}

func readVectors(t testing.TB) []vector {
	t.Helper()
	raw, err := os.ReadFile("testdata/measure.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Cases []vector `json:"cases"`
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	return file.Cases
}

// spec reads the flags of a vector.
func (v vector) spec(t testing.TB) Spec {
	t.Helper()
	var s Spec
	if len(v.Args)%2 != 0 {
		t.Fatalf("odd number of arguments: %q", v.Args)
	}
	for i := 0; i < len(v.Args); i += 2 {
		flag, value := v.Args[i], v.Args[i+1]
		var err error
		switch flag {
		case "--mode":
			s.Mode = Mode(value)
		case "--ovmf":
			s.Firmware, err = os.ReadFile(filepath.Join("testdata", value))
		case "--kernel":
			s.HashKernel = true
			s.Kernel, err = os.ReadFile(filepath.Join("testdata", value))
		case "--initrd":
			s.HasInitrd = true
			s.Initrd, err = os.ReadFile(filepath.Join("testdata", value))
		case "--append":
			s.Append = value
		case "--vcpus":
			s.VCPUs, err = strconv.Atoi(value)
		case "--vcpu-type":
			s.VCPUType = value
		case "--guest-features":
			s.GuestFeatures, err = strconv.ParseUint(value, 0, 64)
		default:
			t.Fatalf("unknown flag %s", flag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func TestVectors(t *testing.T) {
	got := map[Mode]struct{ computed, refused int }{}
	for i, v := range readVectors(t) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := v.spec(t)
			digest, err := Digest(s)
			n := got[s.Mode]
			if v.RC == 0 {
				if hex.EncodeToString(digest) != v.Out || err != nil {
					t.Errorf("%q: %x, %v; want %s", v.Args, digest, err, v.Out)
				}
				n.computed++
			} else {
				want, known := refusals[v.Err]
				if !known {
					t.Fatalf("%q: the table of refusals lacks %q", v.Args, v.Err)
				}
				if digest != nil || !errors.Is(err, want) {
					t.Errorf("%q: %x, %v; want %v", v.Args, digest, err, want)
				}
				n.refused++
			}
			got[s.Mode] = n
		})
	}
	if len(got) != len(covered) {
		t.Errorf("modes seen: %v, want %v", got, covered)
	}
	for mode, want := range covered {
		if got[mode] != want {
			t.Errorf("mode %s: saw %+v cases, want %+v", mode, got[mode], want)
		}
	}
}
