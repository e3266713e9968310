package explain

import (
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/measure"
)

// svsmLab is a record of one launch under an SVSM.
func svsmLab(t testing.TB) (measure.Spec, Query) {
	t.Helper()
	l := newLab(t)
	spec := measure.Spec{Mode: measure.SNPSVSM, Firmware: l.sev.Firmware, SVSM: testFile(t, "svsm-16k.bin"), VarsSize: 8192,
		VCPUs: 2, VCPUType: "EPYC-Milan", GuestFeatures: 1}
	r, err := measure.NewRecord([]measure.Spec{spec}, measure.Disk{UUID: "c0ffee00-84f0-4973-92ec-06879ce3da0b", HeaderPin: measure.Hash{1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return spec, Query{Record: r, Firmware: l.query.Firmware, SVSM: []Firmware{{"svsm.bin", spec.SVSM}}, MaxVCPUs: 8}
}

// TestSVSM changes one or two things in a launch under an SVSM.
func TestSVSM(t *testing.T) {
	base, query := svsmLab(t)
	other := slices.Clone(base.SVSM)
	other[0] ^= 1
	find := func(s measure.Spec) *Answer {
		t.Helper()
		q := query
		q.Digest, q.SVSM, q.VarsSizes = mustDigest(t, s), append(slices.Clone(q.SVSM), Firmware{"other.bin", other}), []int64{12288}
		a, err := Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := find(base); !a.InRecord || len(a.Differences) != 0 || a.Fit.VarsSize != base.VarsSize {
		t.Fatalf("unchanged: %+v", a)
	}
	for name, test := range map[string]struct {
		change func(*measure.Spec)
		want   []string
	}{
		"more vCPUs":           {func(s *measure.Spec) { s.VCPUs = 5 }, []string{"vCPUs"}},
		"old host, other CPU":  {func(s *measure.Spec) { s.OldHostKernel, s.VCPUType = true, "EPYC-Genoa" }, []string{"host kernel", "vCPU type"}},
		"as sev-snp-measure":   {func(s *measure.Spec) { s.X87Unset = true }, []string{"floating-point control words"}},
		"usual variable store": {func(s *measure.Spec) { s.VarsSize = 0x84000 }, []string{"variable store"}},
		"given variable store": {func(s *measure.Spec) { s.VarsSize = 12288 }, []string{"variable store"}},
		"other SVSM":           {func(s *measure.Spec) { s.SVSM, s.GuestFeatures = other, 0x21 }, []string{"guest features", "SVSM"}},
		"no SVSM":              {func(s *measure.Spec) { s.Mode, s.SVSM, s.VarsSize = measure.SNP, nil, 0 }, []string{"mode"}},
	} {
		s := base
		test.change(&s)
		a := find(s)
		var got []string
		for _, d := range a.Differences {
			got = append(got, d.What)
		}
		if !a.Explained || a.InRecord || !slices.Equal(got, test.want) || a.Fit.Mode != s.Mode || a.Fit.VarsSize != s.VarsSize {
			t.Errorf("%s: explained %v, differences %v, want %v; %+v", name, a.Explained, a.Differences, test.want, a.Fit)
		}
		if name == "as sev-snp-measure" && a.Fit.Profile != "" {
			t.Errorf("%s: profile %q", name, a.Fit.Profile)
		}
	}
}

// TestNearest takes what a launch is made of away, and wants it named.
func TestNearest(t *testing.T) {
	_, query := svsmLab(t)
	l := newLab(t)
	find := func(q Query, size int) *Answer {
		t.Helper()
		q.Digest = make([]byte, size)
		a, err := Find(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := find(query, 48)
	if n := a.Nearest; n == nil || len(n.Lacking) != 0 || n.Launch.Mode != measure.SNPSVSM {
		t.Fatalf("all at hand: %+v", n)
	}
	if a.Tried.SVSMs != 1 || a.Tried.VarsSizes != 3 || !slices.Equal(a.Tried.Modes, []measure.Mode{measure.SNP, measure.SNPSVSM}) {
		t.Errorf("tried %+v", a.Tried)
	}
	noKernel, otherLine := l.query, l.query
	noKernel.Kernel, noKernel.Initrd, noKernel.Append = nil, nil, ""
	otherLine.Append = "something else"
	noSVSM, noFirmware, broken := query, query, query
	noSVSM.SVSM, noFirmware.Firmware, broken.SVSM = nil, nil, []Firmware{{"noise", []byte("noise")}}
	for name, test := range map[string]struct {
		query Query
		size  int
		want  []string // beginnings
	}{
		"no SVSM":            {noSVSM, 48, []string{"SVSM with SHA-256 "}},
		"broken SVSM":        {broken, 48, []string{"SVSM with SHA-256 "}},
		"no firmware":        {noFirmware, 48, []string{"firmware with SHA-256 "}},
		"SEV":                {noKernel, 32, nil},
		"no kernel":          {noKernel, 48, []string{"kernel, initrd and command line"}},
		"other command line": {otherLine, 48, []string{"kernel, initrd and command line"}},
		"kernel":             {l.query, 48, nil},
	} {
		a := find(test.query, test.size)
		if a.Nearest == nil || len(a.Nearest.Lacking) != len(test.want) {
			t.Errorf("%s: %+v, want %q", name, a.Nearest, test.want)
			continue
		}
		for i, want := range test.want {
			if !strings.HasPrefix(a.Nearest.Lacking[i], want) {
				t.Errorf("%s: %q, want %q", name, a.Nearest.Lacking[i], want)
			}
		}
		if name == "broken SVSM" && !slices.ContainsFunc(a.Hints, func(s string) bool { return strings.Contains(s, `with the SVSM "noise"`) }) {
			t.Errorf("%s: hints %q", name, a.Hints)
		}
	}
	if a := find(query, 32); a.Nearest != nil || !strings.Contains(a.Hints[0], "none of that kind") {
		t.Errorf("no launch of the kind: %+v", a)
	}
}
