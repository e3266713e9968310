package measure

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// vector is one recorded case: the flags of sev-snp-measure, and what it said.
type vector struct {
	Args []string `json:"args"`
	RC   int      `json:"rc"`
	Out  string   `json:"out"`
	Err  string   `json:"err"`
}

// tally counts cases that the reference computes and cases that it refuses.
type tally struct{ computed, refused int }

// covered counts the cases that must match, by file and mode. All that the files hold are
// here: no case belongs to a mode that Digest does not know, and none is passed over.
var covered = map[string]map[Mode]tally{
	"measure.json":         {SEV: {4, 1}, SEVES: {12, 1}, SNP: {24, 2}, SNPOVMFHash: {1, 0}},
	"measure-more.json":    {SEV: {2, 0}, SEVES: {20, 0}, SNP: {23, 0}, SNPOVMFHash: {1, 0}},
	"measure-microvm.json": {SEV: {1, 1}, SEVES: {2, 0}},
	"measure-svsm.json":    {SNPSVSM: {38, 6}, SEVES: {0, 1}, SNP: {0, 4}},
}

// ofTheCommand are refusals for how flags go together, which cmd/sealboot tests.
var ofTheCommand = []string{"--vars-file: not allowed with argument --vars-size", "--dump-vmsa is not availibe in the selected mode"}

// refusals are the reference's messages and our errors for them.
var refusals = map[string]error{
	"sev-snp-measure: error: snp:svsm mode requires --vars-size or --vars-file":                           ErrSpec,
	"sev-snp-measure: error: missing --vcpus N in guest mode 'snp:svsm'":                                  ErrSpec,
	"sev-snp-measure: error: missing --vcpus N in guest mode 'snp'":                                       ErrSpec,
	"sev-snp-measure: error: missing --vcpu-type or --vcpu-sig or --vcpu-family in guest mode 'snp:svsm'": ErrSpec,
	"sev-snp-measure: error: missing --vcpu-type or --vcpu-sig or --vcpu-family in guest mode 'snp'":      ErrSpec,
	"sev-snp-measure: error: --kernel required when using --initrd":                                       ErrSpec,
	"sev-snp-measure: error: --kernel required when using --append":                                       ErrSpec,
	"AssertionError: SVSM mode is only implemented for Qemu.":                                             ErrSpec,
	"ValueError: SNP OVMF hash only works with SNP":                                                       ErrSpec,
	"Error: Can't find SVSM_INFO_GUID entry in SVSM table":                                                ErrNoResetVector,
	"Error: Kernel specified but OVMF doesn't support kernel/initrd/cmdline measurement":                  ErrNoKernelHashes,
	"Error: Kernel specified but OVMF metadata doesn't include SNP_KERNEL_HASHES section":                 ErrNoKernelHashes,
}

func readVectors(t testing.TB, name string) []vector {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("testdata", name))
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
	var family, model, stepping uint64
	for i := 0; i < len(v.Args); i++ {
		if v.Args[i] == "--old-host-kernel=true" {
			s.OldHostKernel = true
			continue
		}
		if v.Args[i] == "--dump-vmsa" { // the command's
			continue
		}
		flag, value := v.Args[i], v.Args[i+1]
		i++
		var err error
		var n uint64
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
		case "--svsm":
			s.SVSM, err = os.ReadFile(filepath.Join("testdata", value))
		case "--vars-size":
			s.VarsSize, err = strconv.ParseInt(value, 10, 64)
		case "--vars-file":
			var vars []byte
			vars, err = os.ReadFile(filepath.Join("testdata", value))
			s.VarsSize = int64(len(vars))
		case "--vcpus":
			s.VCPUs, err = strconv.Atoi(value)
		case "--vcpu-type":
			s.VCPUType = value
		case "--vcpu-sig":
			n, err = strconv.ParseUint(value, 0, 32)
			s.VCPUSignature = uint32(n)
		case "--vcpu-family":
			family, err = strconv.ParseUint(value, 0, 8)
		case "--vcpu-model":
			model, err = strconv.ParseUint(value, 0, 8)
		case "--vcpu-stepping":
			stepping, err = strconv.ParseUint(value, 0, 8)
		case "--vmm-type":
			s.VMM = VMM(value)
		case "--guest-features":
			s.GuestFeatures, err = strconv.ParseUint(value, 0, 64)
		case "--snp-ovmf-hash":
			s.OVMFHash, err = hex.DecodeString(value)
		default:
			t.Fatalf("unknown flag %s", flag)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if family != 0 {
		s.VCPUSignature = Signature(uint8(family), uint8(model), uint8(stepping))
	}
	if s.Mode == SEVES {
		s.GuestFeatures = 0 // the reference does not look at them
	} else if s.GuestFeatures == 0 && !slices.Contains(v.Args, "--guest-features") {
		s.GuestFeatures = 1 // the reference's default
	}
	s.X87Unset = s.Mode == SNPSVSM && !s.OldHostKernel
	return s
}

func TestVectors(t *testing.T) {
	for file, want := range covered {
		t.Run(file, func(t *testing.T) {
			got, passed := map[Mode]tally{}, 0
			for _, v := range readVectors(t, file) {
				if slices.ContainsFunc(ofTheCommand, func(why string) bool { return strings.HasSuffix(v.Err, why) }) {
					passed++
					continue
				}
				v.check(t, got)
			}
			if most := map[bool]int{true: 2}[file == "measure-svsm.json"]; passed != most {
				t.Errorf("%d refusals of the command, want %d", passed, most)
			}
			if !maps.Equal(got, want) {
				t.Errorf("cases seen: %v, want %v", got, want)
			}
		})
	}
}

// check computes the case and counts it.
func (v vector) check(t *testing.T, seen map[Mode]tally) {
	s := v.spec(t)
	digest, err := Digest(s)
	n := seen[s.Mode]
	if v.RC == 0 {
		n.computed++
		if hex.EncodeToString(digest) != v.Out || err != nil {
			t.Errorf("%q: %x, %v; want %s", v.Args, digest, err, v.Out)
		}
	} else {
		n.refused++
		if want := refusals[v.Err]; want == nil {
			t.Errorf("%q: the table of refusals lacks %q", v.Args, v.Err)
		} else if digest != nil || !errors.Is(err, want) {
			t.Errorf("%q: %x, %v; want %v", v.Args, digest, err, want)
		}
	}
	seen[s.Mode] = n
}
