package explain

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/sealboot/sealboot/measure"
)

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile("../measure/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func mustDigest(t testing.TB, s measure.Spec) []byte {
	t.Helper()
	d, err := measure.Digest(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lab is a record of three launches, and how each is made.
type lab struct {
	sev, es, snp measure.Spec
	query        Query
}

func newLab(t testing.TB) lab {
	t.Helper()
	fw, kernel, initrd := testFile(t, "amdsev-64k.fd"), testFile(t, "kernel.bin"), testFile(t, "initrd.bin")
	l := lab{
		sev: measure.Spec{Mode: measure.SEV, Firmware: fw},
		es:  measure.Spec{Mode: measure.SEVES, Firmware: fw, VCPUs: 2, VCPUType: "EPYC-Rome"},
		snp: measure.Spec{Mode: measure.SNP, Firmware: fw, VCPUs: 4, VCPUType: "EPYC-v4", GuestFeatures: 1,
			HashKernel: true, Kernel: kernel, HasInitrd: true, Initrd: initrd, Append: "root=/dev/vda"},
	}
	r, err := measure.NewRecord([]measure.Spec{l.sev, l.es, l.snp},
		measure.Disk{UUID: "c0ffee00-84f0-4973-92ec-06879ce3da0b", HeaderPin: measure.Hash{1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	k, i := sha256.Sum256(kernel), sha256.Sum256(initrd)
	l.query = Query{Record: r, Firmware: []Firmware{{"fw.fd", fw}}, Kernel: &k, Initrd: &i, Append: l.snp.Append, MaxVCPUs: 8}
	return l
}

func (l lab) find(t testing.TB, digest []byte) *Answer {
	t.Helper()
	l.query.Digest = digest
	a, err := Find(t.Context(), l.query)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestDifferences changes one or two things in a launch of the record, and wants exactly them named.
func TestDifferences(t *testing.T) {
	l := newLab(t)
	for name, spec := range map[string]measure.Spec{"sev": l.sev, "es": l.es, "snp": l.snp} {
		if a := l.find(t, mustDigest(t, spec)); !a.InRecord || a.Fit.Mode != spec.Mode || len(a.Differences) != 0 {
			t.Fatalf("%s, unchanged: %+v", name, a)
		}
	}
	spoiled := slices.Clone(l.sev.Firmware)
	spoiled[0] ^= 1
	for name, test := range map[string]struct {
		base   measure.Spec
		change func(*measure.Spec)
		want   []string
	}{
		"other firmware":        {l.sev, func(s *measure.Spec) { s.Firmware = spoiled }, []string{"firmware"}},
		"old host, ES":          {l.es, func(s *measure.Spec) { s.OldHostKernel = true }, []string{"host kernel"}},
		"more vCPUs, ES":        {l.es, func(s *measure.Spec) { s.VCPUs = 8 }, []string{"vCPUs"}},
		"other CPU, ES":         {l.es, func(s *measure.Spec) { s.VCPUType = "EPYC-Genoa" }, []string{"vCPU type"}},
		"host's CPU, ES":        {l.es, func(s *measure.Spec) { s.VCPUType, s.VCPUSignature = "", measure.Signature(25, 17, 1) }, []string{"vCPU type"}},
		"given CPU":             {l.snp, func(s *measure.Spec) { s.VCPUType, s.VCPUSignature = "", 0xb40f40 }, []string{"vCPU type"}},
		"fewer vCPUs, old host": {l.snp, func(s *measure.Spec) { s.VCPUs, s.OldHostKernel = 1, true }, []string{"vCPUs", "host kernel"}},
		"debug swap":            {l.snp, func(s *measure.Spec) { s.GuestFeatures = 0x21 }, []string{"guest features"}},
		"GCE":                   {l.snp, func(s *measure.Spec) { s.VMM = measure.GCE }, []string{"hypervisor"}},
		"EC2":                   {l.snp, func(s *measure.Spec) { s.VMM = measure.EC2 }, []string{"hypervisor"}},
		"no hashes": {l.snp, func(s *measure.Spec) {
			s.HashKernel, s.Kernel, s.HasInitrd, s.Initrd, s.Append = false, nil, false, nil, ""
		}, []string{"kernel hashes"}},
		"no initrd":            {l.snp, func(s *measure.Spec) { s.HasInitrd, s.Initrd = false, nil }, []string{"initrd"}},
		"a newline":            {l.snp, func(s *measure.Spec) { s.Append += "\n" }, []string{"command line"}},
		"a console, DebugSwap": {l.snp, func(s *measure.Spec) { s.Append, s.GuestFeatures = "console=ttyS0 "+s.Append, 0x21 }, []string{"guest features", "command line"}},
		"no command line":      {l.snp, func(s *measure.Spec) { s.Append = "" }, []string{"command line"}},
		"kernel hashes under SEV": {l.sev, func(s *measure.Spec) {
			s.HashKernel, s.Kernel, s.HasInitrd, s.Initrd, s.Append = true, l.snp.Kernel, true, l.snp.Initrd, l.snp.Append
		}, []string{"kernel hashes"}},
		"an unusual guest feature": {l.snp, func(s *measure.Spec) { s.GuestFeatures = 1 | 1<<9 }, []string{"guest features"}},
	} {
		s := test.base
		test.change(&s)
		l := newLab(t)
		if name == "other firmware" {
			l.query.Firmware = append(l.query.Firmware, Firmware{"other.fd", spoiled}, Firmware{"noise", []byte("no firmware")})
		}
		if s.VCPUSignature == 0xb40f40 {
			l.query.Signatures = []uint32{s.VCPUSignature}
		}
		if !s.HashKernel && !test.base.HashKernel { // a smaller search
			l.query.Kernel, l.query.Initrd, l.query.Append = nil, nil, ""
		}
		a := l.find(t, mustDigest(t, s))
		var got []string
		for _, d := range a.Differences {
			got = append(got, d.What)
			if d.Expected == d.Found {
				t.Errorf("%s: %+v differs in nothing", name, d)
			}
		}
		if name == "debug swap" && a.Fit.Profile != "debug-swap" || name == "old host, ES" && a.Fit.Profile != "before-6.10" {
			t.Errorf("%s: profile %q", name, a.Fit.Profile)
		}
		if !a.Explained || a.InRecord || !slices.Equal(got, test.want) {
			t.Errorf("%s: explained %v, differences %v, want %v", name, a.Explained, a.Differences, test.want)
		}
	}
}

// TestWithoutNUL has a hashes table that measure does not make: the command line without its NUL.
func TestWithoutNUL(t *testing.T) {
	l := newLab(t)
	series, err := measure.NewSeries(l.snp.Firmware)
	if err != nil {
		t.Fatal(err)
	}
	s := l.snp
	s.HashKernel = false
	var digest []byte
	table := measure.HashesTable(*l.query.Kernel, *l.query.Initrd, sha256.Sum256([]byte(l.snp.Append)))
	if err := series.Each(s, table, func(_ int, d []byte) { digest = slices.Clone(d) }); err != nil {
		t.Fatal(err)
	}
	if a := l.find(t, digest); len(a.Differences) != 1 || a.Differences[0].Found != "without NUL" {
		t.Errorf("%+v", a)
	}
}

func TestNothingFits(t *testing.T) {
	l := newLab(t)
	for _, size := range []int{32, 48} {
		a := l.find(t, make([]byte, size))
		if a.Explained || a.Fit != nil || len(a.Hints) == 0 || a.Tried.Candidates < 1000 {
			t.Errorf("%d bytes: %+v", size, a)
		}
	}
	l.query.Firmware = nil
	if a := l.find(t, make([]byte, 32)); a.Explained || a.Tried.Candidates != 3 || len(a.Hints) == 0 {
		t.Errorf("without firmware: %+v", a)
	}
}

// TestSameAnswer runs the same search on one worker and on many.
func TestSameAnswer(t *testing.T) {
	l := newLab(t)
	s := l.snp
	s.VMM, s.VCPUs = measure.GCE, 7
	other := slices.Clone(s.Firmware)
	l.query.Firmware = append(l.query.Firmware, Firmware{"same.fd", other}) // fits as well: the first is named
	var first []byte
	for _, workers := range []int{1, 2, 7, 1} {
		l.query.Workers = workers
		a, err := json.Marshal(l.find(t, mustDigest(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = a
		}
		if string(a) != string(first) {
			t.Errorf("%d workers: %s\nbefore: %s", workers, a, first)
		}
	}
}

// TestNearestFirst has two launches with one digest, the farther one first in the order of the search.
func TestNearestFirst(t *testing.T) {
	l := newLab(t)
	x := l.query.axes()
	near := measure.Spec{Mode: measure.SEVES, VCPUSignature: signatureOf(l.query.Record.Digests[1].Launch)}
	far := near
	far.OldHostKernel = true
	list := []setup{{0, &x.hashes[0], far}, {0, &x.hashes[0], near}}
	for _, hits := range [][]hit{{{0, 2, nil}, {1, 2, nil}}, {{1, 2, nil}, {0, 2, nil}}, {{1, 2, nil}, {1, 3, nil}}} {
		var a Answer
		l.query.choose(&a, x, list, hits)
		if len(a.Differences) != 0 || a.Fit.OldHostKernel || a.Fit.VCPUs != 2 {
			t.Errorf("%+v of %v", a, hits)
		}
	}
}

func TestQueryRefusals(t *testing.T) {
	l := newLab(t)
	l.query.Digest = make([]byte, 32)
	if err := l.query.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Query){
		"no record":        func(q *Query) { q.Record = nil },
		"nothing":          func(q *Query) { q.Digest = nil },
		"both":             func(q *Query) { q.Measured = new(Measured) },
		"short digest":     func(q *Query) { q.Digest = q.Digest[:31] },
		"empty digest":     func(q *Query) { q.Digest = []byte{} },
		"no kernel":        func(q *Query) { q.Kernel = nil },
		"too many vCPUs":   func(q *Query) { q.MaxVCPUs = MaxVCPUs + 1 },
		"less than none":   func(q *Query) { q.MaxVCPUs = -1 },
		"signature 0":      func(q *Query) { q.Signatures = []uint32{0} },
		"many SVSMs":       func(q *Query) { q.SVSM = make([]Firmware, MaxSVSMs+1) },
		"no variables":     func(q *Query) { q.VarsSizes = []int64{0} },
		"many firmwares":   func(q *Query) { q.Firmware = make([]Firmware, MaxFirmwares+1) },
		"huge firmware":    func(q *Query) { q.Firmware = []Firmware{{"x", make([]byte, 64<<20+1)}} },
		"long commandline": func(q *Query) { q.Append = string(make([]byte, MaxCommandLine+1)) },
	} {
		q := l.query
		spoil(&q)
		if a, err := Find(t.Context(), q); a != nil || !errors.Is(err, ErrQuery) {
			t.Errorf("%s: %v, %v", name, a, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if a, err := Find(ended, l.query); a != nil || !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v, %v", a, err)
	}
}

func TestAnswerJSON(t *testing.T) {
	text, err := json.Marshal(newLab(t).find(t, make([]byte, 48)))
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]any
	if err := json.Unmarshal(text, &fields); err != nil {
		t.Fatal(err)
	}
	var names []string
	for name := range fields {
		names = append(names, name)
	}
	slices.Sort(names)
	if want := []string{"explained", "hints", "in_record", "nearest", "tried"}; !reflect.DeepEqual(names, want) {
		t.Errorf("fields %v, want %v", names, want)
	}
}

// BenchmarkFind searches for a digest that no candidate has; the metric is candidates a second.
func BenchmarkFind(b *testing.B) {
	l := newLab(b)
	for name, size := range map[string]int{"ES": 32, "SNP": 48} {
		b.Run(name, func(b *testing.B) {
			l.query.MaxVCPUs = DefaultVCPUs
			l.query.Digest = make([]byte, size)
			candidates := int64(0)
			for b.Loop() {
				a, err := Find(b.Context(), l.query)
				if err != nil || a.Explained {
					b.Fatal(a, err)
				}
				candidates += a.Tried.Candidates
			}
			b.ReportMetric(float64(candidates)/float64(b.N), "candidates/op")
			b.ReportMetric(float64(candidates)/b.Elapsed().Seconds(), "candidates/s")
		})
	}
}
