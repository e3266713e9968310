package measure

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
)

// TestSeriesIsDigest compares each digest of a series with the one that is computed alone.
func TestSeriesIsDigest(t *testing.T) {
	good := goodSNP(t)
	firmware := good.Firmware
	series, err := NewSeries(firmware)
	if err != nil {
		t.Fatal(err)
	}
	kernel, initrd := testFile(t, "kernel.bin"), testFile(t, "initrd.bin")
	compared := 0
	for _, mode := range []Mode{SEV, SEVES, SNP} {
		for _, vmm := range VMMs() {
			for _, hashed := range []bool{false, true} {
				for _, old := range []bool{false, true} {
					s := Spec{Mode: mode, Firmware: firmware, VCPUs: 3, VCPUType: "EPYC-v4", VMM: vmm, OldHostKernel: old}
					if mode == SNP {
						s.GuestFeatures = 0x21
					}
					var table []byte
					if hashed {
						s.HashKernel, s.Kernel, s.HasInitrd, s.Initrd, s.Append = true, kernel, true, initrd, "quiet"
						table = HashesTable(sha256.Sum256(kernel), sha256.Sum256(initrd), sha256.Sum256([]byte("quiet\x00")))
					}
					err := series.Each(s, table, func(n int, digest []byte) {
						one := s
						one.VCPUs = max(n, 1)
						if !bytes.Equal(digest, mustDigest(t, one)) {
							t.Errorf("%s, %s, hashes %v, old host %v, %d vCPUs: another digest", mode, vmm, hashed, old, n)
						}
						compared++
					})
					if err != nil {
						t.Fatal(err)
					}
				}
			}
		}
	}
	if compared != 12*(1+3+3) {
		t.Errorf("%d digests compared", compared)
	}
}

func TestSeriesRefusals(t *testing.T) {
	if _, err := NewSeries(make([]byte, 4096)); err == nil {
		t.Error("a file of zeros is taken for firmware")
	}
	series, err := NewSeries(testFile(t, "plain-64k.fd"))
	if err != nil {
		t.Fatal(err)
	}
	none := func(int, []byte) { t.Error("a digest came out") }
	table := KernelHashes([]byte("k"), nil, "")
	for name, test := range map[string]struct {
		spec  Spec
		table []byte
		want  error
	}{
		"no place for hashes, SEV": {Spec{Mode: SEV}, table, ErrNoKernelHashes},
		"no place for hashes, SNP": {Spec{Mode: SNP, VCPUs: 1, VCPUType: "EPYC"}, table, ErrNoKernelHashes},
		"short table":              {Spec{Mode: SEV}, table[:100], ErrSpec},
		"no launch":                {Spec{Mode: SNPOVMFHash}, nil, ErrSpec},
		"no vCPU":                  {Spec{Mode: SNP, VCPUType: "EPYC"}, nil, ErrSpec},
	} {
		if err := series.Each(test.spec, test.table, none); !errors.Is(err, test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
