package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"

	"github.com/sealboot/sealboot/explain"
	"github.com/sealboot/sealboot/explain/snpreport"
	"github.com/sealboot/sealboot/measure"
)

func printExplained(w io.Writer, e explained) error {
	var out bytes.Buffer
	if e.Report != nil {
		printAttestation(&out, e.Report)
	}
	switch {
	case !e.Explained:
		fmt.Fprintln(&out, "not explained")
	case e.InRecord && len(e.Differences) == 0:
		fmt.Fprintln(&out, "expected: the record has this launch")
	case e.InRecord:
		fmt.Fprintln(&out, "explained: the record's digest, but not as claimed")
	default:
		fmt.Fprintln(&out, "explained: not in the record, but this launch has the digest")
	}
	if e.Fit != nil {
		printFit(&out, e.Fit)
	}
	for _, d := range e.Differences {
		fmt.Fprintf(&out, "differs   %s: expected %s, found %s\n", d.What, d.Expected, d.Found)
	}
	if n := e.Nearest; n != nil {
		state := "everything of it is at hand"
		if len(n.Lacking) > 0 {
			state = "not all of it is at hand"
		}
		fmt.Fprintf(&out, "nearest   the record's launch %s: %s\n", n.About, state)
		for _, l := range n.Lacking {
			fmt.Fprintf(&out, "lacking   %s\n", l)
		}
	}
	for _, hint := range e.Hints {
		fmt.Fprintf(&out, "hint      %s\n", hint)
	}
	for _, s := range e.Skipped {
		fmt.Fprintf(&out, "skipped   %s\n", s)
	}
	printTried(&out, e.Tried)
	_, err := w.Write(out.Bytes())
	return err
}

func printTried(w io.Writer, t explain.Tried) {
	fmt.Fprintf(w, "tried     %d candidates: %d of the record", t.Candidates, t.Recorded)
	if t.Variations > 0 {
		fmt.Fprintf(w, "; %d pairs of policy and API version", t.Variations)
	}
	if t.Firmwares > 0 {
		modes := make([]string, len(t.Modes))
		for i, m := range t.Modes {
			modes[i] = string(m)
		}
		fmt.Fprintf(w, "; %d firmware files in modes %s, up to %d vCPUs, %d CPU types, %d hypervisors, %d kinds of host kernel, "+
			"%d guest features, %d ways of kernel hashes", t.Firmwares, strings.Join(modes, ", "), t.MaxVCPUs, t.VCPUTypes, t.VMMs, t.HostKernels,
			t.Features, t.KernelHashes)
	}
	if t.SVSMs > 0 {
		fmt.Fprintf(w, "; %d SVSM images, %d sizes of variable stores", t.SVSMs, t.VarsSizes)
	}
	fmt.Fprintln(w)
}

func printFit(w io.Writer, f *explain.Fit) {
	l := measure.Launch{Mode: f.Mode, VCPUs: f.VCPUs, VCPUType: f.VCPUType, VCPUSignature: f.VCPUSignature, VMM: f.VMM,
		GuestFeatures: f.GuestFeatures, OldHostKernel: f.OldHostKernel}
	fmt.Fprintf(w, "launch    %s\n", explain.About(l))
	if f.Firmware != "" {
		fmt.Fprintf(w, "firmware  %q, SHA-256 %v\n", f.Firmware, f.FirmwareSHA256)
	} else {
		fmt.Fprintf(w, "firmware  the record's, SHA-256 %v\n", f.FirmwareSHA256)
	}
	if len(f.SVSMSHA256) > 0 {
		name := "the record's"
		if f.SVSM != "" {
			name = fmt.Sprintf("%q", f.SVSM)
		}
		fmt.Fprintf(w, "SVSM      %s, SHA-256 %v, below %d bytes of variables\n", name, f.SVSMSHA256, f.VarsSize)
	}
	for _, p := range measure.Profiles() {
		if p.Name == f.Profile {
			fmt.Fprintf(w, "host      profile %s: %s\n", p.Name, p.Description)
		}
	}
	if f.KernelHashes {
		fmt.Fprint(w, "kernel    hashes on")
		if f.CommandLine != nil {
			fmt.Fprintf(w, ", command line %q, initrd: %v", *f.CommandLine, f.HasInitrd)
		}
		fmt.Fprintln(w)
	}
	if f.Policy != "" {
		fmt.Fprintf(w, "platform  policy %s, API %s\n", f.Policy, f.API)
	}
}

// printAttestation shows the report's claims; nothing of it was verified.
func printAttestation(w io.Writer, r *snpreport.Facts) {
	fmt.Fprintf(w, "report    version %d, signature not checked, measurement %v\n", r.Version, r.Measurement)
	fmt.Fprintf(w, "policy    %#x: ABI at least %s, debugging %v, migration agent %v, SMT %v, single socket %v\n",
		r.Policy, r.ABI, r.Debug, r.Migration, r.SMT, r.SingleSocket)
	fmt.Fprintf(w, "platform  firmware %s, reported TCB %s, TCB at launch %s\n", r.Firmware, r.ReportedTCB, r.LaunchTCB)
	fmt.Fprintf(w, "guest     VMPL %d, SVN %d, host data %v\n", r.VMPL, r.GuestSVN, r.HostData)
}
