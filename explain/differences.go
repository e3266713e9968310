package explain

import (
	"bytes"
	"cmp"
	"fmt"
	"strings"

	"github.com/sealboot/sealboot/measure"
)

// nearest gives the differences from the record's launch that has the fewest.
func (q Query) nearest(f *Fit) (best []Difference, least int) {
	least = -1
	for _, d := range q.Record.Digests {
		list := f.differences(q.Record.Firmware.SHA256, d)
		weight := 0
		for _, one := range list {
			weight += one.weight
		}
		if least < 0 || weight < least {
			best, least = list, weight
		}
	}
	return best, least
}

func (f *Fit) differences(firmware measure.Hash, d measure.LaunchDigest) (list []Difference) {
	differ := func(weight int, what string, expected, found any) {
		if expected != found {
			list = append(list, Difference{what, fmt.Sprint(expected), fmt.Sprint(found), weight})
		}
	}
	if f.FirmwareSHA256 != firmware {
		list = append(list, Difference{"firmware", "SHA-256 " + firmware.String(), fmt.Sprintf("%q, SHA-256 %v", f.Firmware, f.FirmwareSHA256), 8})
	}
	differ(6, "mode", d.Mode, f.Mode)
	if f.Mode != measure.SEV && d.Mode != measure.SEV {
		differ(2, "vCPUs", d.VCPUs, f.VCPUs)
		differ(5, "hypervisor", cmp.Or(d.VMM, measure.QEMU), cmp.Or(f.VMM, measure.QEMU))
		differ(3, "host kernel", hostKernel(d.OldHostKernel), hostKernel(f.OldHostKernel))
		if want := signatureOf(d.Launch); want != f.signature && want != 0 && f.signature != 0 {
			differ(3, "vCPU type", cpuName(d.VCPUType, want), cpuName(f.VCPUType, f.signature))
		}
		if d.Mode == f.Mode && d.GuestFeatures != f.GuestFeatures {
			list = append(list, Difference{"guest features", featuresText(d.GuestFeatures), featuresText(f.GuestFeatures), 3})
		}
	}
	if f.Mode == measure.SNPSVSM && d.Mode == f.Mode {
		if !bytes.Equal(d.SVSM, f.SVSMSHA256) {
			list = append(list, Difference{"SVSM", "SHA-256 " + d.SVSM.String(), fmt.Sprintf("%q, SHA-256 %v", f.SVSM, f.SVSMSHA256), 8})
		}
		differ(4, "variable store", fmt.Sprintf("%d bytes", d.VarsSize), fmt.Sprintf("%d bytes", f.VarsSize))
	}
	if f.X87Unset {
		list = append(list, Difference{"floating-point control words", "both set or both zero",
			"mxcsr set and x87_fcw zero: so sev-snp-measure computes, and no host is known to launch", 5})
	}
	return append(list, f.hashes.differences(d.KernelHashes)...)
}

func cpuName(name string, sig uint32) string {
	for _, p := range processors {
		if name == "" && p.signature == sig {
			name = "-cpu host on " + p.name
		}
	}
	return strings.TrimSpace(fmt.Sprintf("%s (signature %#x)", name, sig))
}

func featuresText(f uint64) string {
	if f&debugSwap != 0 {
		return fmt.Sprintf("%#x (DebugSwap: Linux hosts of 6.6 to 6.8 set it unasked)", f)
	}
	return fmt.Sprintf("%#x", f)
}
