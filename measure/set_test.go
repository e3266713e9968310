package measure

import (
	"bytes"
	"crypto/sha512"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/ovmf"
)

func upTo(n int) (list []int) {
	for i := range n {
		list = append(list, i+1)
	}
	return list
}

// TestSetIsDigest compares every digest of a set with the one computed alone.
func TestSetIsDigest(t *testing.T) {
	good := goodSNP(t)
	svsm := Spec{Mode: SNPSVSM, Firmware: good.Firmware, SVSM: testFile(t, "svsm-16k.bin"), VarsSize: 540672, VCPUType: "EPYC-v4", GuestFeatures: 1}
	compared := 0
	for _, mode := range []Mode{SEV, SEVES, SNP, SNPSVSM} {
		base := good
		base.Mode = mode
		switch mode {
		case SEVES:
			base.GuestFeatures = 0
		case SNPSVSM:
			base = svsm
		}
		set, err := DigestSet(base, []int{1, 2, 5}, Profiles())
		if err != nil {
			t.Fatal(err)
		}
		if want := map[bool]int{true: 12, false: 1}[mode.MeasuresVCPUs()]; len(set) != want {
			t.Errorf("%s: %d digests, want %d", mode, len(set), want)
		}
		seen := map[string]bool{}
		for _, d := range set {
			one := base
			one.VCPUs, one.OldHostKernel, one.GuestFeatures = d.VCPUs, d.OldHostKernel, d.GuestFeatures
			if !bytes.Equal(mustDigest(t, one), d.Digest) {
				t.Errorf("%+v is another alone", d)
			}
			if err := d.validate(); err != nil {
				t.Errorf("%+v: %v", d, err)
			}
			if seen[string(d.Digest)] {
				t.Errorf("%+v: its digest is there twice", d)
			}
			seen[string(d.Digest)] = true
			compared++
		}
	}
	if compared != 12*3+1 {
		t.Errorf("%d digests compared", compared)
	}
}

// TestProfilesApply checks what each profile puts into the VMSA, and what it leaves.
func TestProfilesApply(t *testing.T) {
	for name, want := range map[string]struct {
		old     bool
		es, snp uint64
	}{
		"linux-6.10": {false, 0, 0x1}, "before-6.10": {true, 0, 0x1}, "linux-6.6": {true, 0x20, 0x21}, "debug-swap": {false, 0x20, 0x21},
	} {
		p, ok := profileNamed(name)
		es, snp := p.Apply(Spec{Mode: SEVES}), p.Apply(Spec{Mode: SNP})
		if !ok || es.GuestFeatures != want.es || snp.GuestFeatures != want.snp || es.OldHostKernel != want.old || snp.OldHostKernel != want.old {
			t.Errorf("%s: %v, %+v, %+v", name, ok, es, snp)
		}
		if kept := p.Apply(Spec{Mode: SNP, GuestFeatures: 0x200}); kept.GuestFeatures != want.snp|0x200 {
			t.Errorf("%s: SecureTSC became %#x", name, kept.GuestFeatures)
		}
	}
	if len(Profiles()) != 4 {
		t.Errorf("%d profiles", len(Profiles()))
	}
}

func TestFindProfiles(t *testing.T) {
	for names, want := range map[string]int{"all": 4, "linux-6.6": 1, "debug-swap,linux-6.10": 2} {
		if found, err := FindProfiles(names); len(found) != want || err != nil {
			t.Errorf("%q: %v, %v", names, found, err)
		}
	}
	for _, names := range []string{"", "linux-5.0", "all,linux-6.6", "linux-6.6,linux-6.6", "linux-6.6,"} {
		if found, err := FindProfiles(names); found != nil || !errors.Is(err, ErrSpec) {
			t.Errorf("%q: %v, %v", names, found, err)
		}
	}
}

func TestSetRefusals(t *testing.T) {
	good := goodSNP(t)
	if _, err := DigestSet(good, []int{1}, Profiles()); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		spoil func(*Spec)
		vcpus []int
		want  error
	}{
		"no vCPUs":             {func(*Spec) {}, nil, ErrSpec},
		"zero vCPUs":           {func(*Spec) {}, []int{0, 1}, ErrSpec},
		"profiles of EC2":      {func(s *Spec) { s.VMM = EC2 }, []int{1}, ErrSpec},
		"firmware hash":        {func(s *Spec) { s.OVMFHash = make([]byte, 48) }, []int{1}, ErrSpec},
		"no launch":            {func(s *Spec) { s.Mode = SNPOVMFHash }, []int{1}, ErrSpec},
		"unknown type":         {func(s *Spec) { s.VCPUType = "x" }, []int{1}, ErrSpec},
		"no reset vector":      {func(s *Spec) { s.Firmware = patched(s.Firmware, resetAt, 0) }, []int{1, 2}, ErrNoResetVector},
		"no place for hashes":  {func(s *Spec) { s.Firmware = testFile(t, "plain-64k.fd") }, []int{1}, ErrNoKernelHashes},
		"a kernel for an SVSM": {func(s *Spec) { s.Mode, s.SVSM, s.VarsSize = SNPSVSM, testFile(t, "svsm-16k.bin"), 4096 }, []int{1}, ErrNoKernelHashes},
	} {
		s := good
		test.spoil(&s)
		if set, err := DigestSet(s, test.vcpus, Profiles()); set != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %d digests, %v", name, len(set), err)
		}
	}
}

// TestRecordHoldsSets writes the largest set that people ask for, and reads it again.
func TestRecordHoldsSets(t *testing.T) {
	r := goodRecord(t)
	had := len(r.Digests)
	for _, mode := range []Mode{SEVES, SNP} {
		base := Spec{Mode: mode, Firmware: goodSNP(t).Firmware, VCPUType: "EPYC-Milan"}
		set, err := DigestSet(base, upTo(64), Profiles())
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // a second time changes nothing
			if err := r.AddSet(base.Firmware, set); err != nil {
				t.Fatal(err)
			}
		}
	}
	if len(r.Digests) != had+2*64*4 {
		t.Fatalf("%d digests", len(r.Digests))
	}
	text, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ReadRecord(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if got := again.Digests[had+64].Profile; got != "before-6.10" || !slices.Equal(again.Digests[had+64].Digest, r.Digests[had+64].Digest) {
		t.Errorf("digest %d is of %q", had+64, got)
	}
	if _, err := ReadRecord(strings.NewReader(strings.Replace(string(text), `"before-6.10"`, `"linux-6.10"`, 1))); !errors.Is(err, ErrRecord) {
		t.Errorf("a launch under another host's name: %v", err)
	}
	for name, d := range map[string]LaunchDigest{
		"wrong length":    {Launch: Launch{Mode: SEV}, Digest: make([]byte, 31)},
		"profile of SEV":  {Launch: Launch{Mode: SEV}, Profile: "linux-6.10", Digest: bytes.Repeat([]byte{1}, 32)},
		"no such profile": {Launch: Launch{Mode: SEVES, VCPUs: 1, VCPUType: "EPYC"}, Profile: "x", Digest: bytes.Repeat([]byte{1}, 32)},
	} {
		if err := r.AddSet(goodSNP(t).Firmware, []LaunchDigest{d}); !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSVSMRefusals spoils the module.
func TestSVSMRefusals(t *testing.T) {
	good := Spec{Mode: SNPSVSM, Firmware: testFile(t, "amdsev-64k.fd"), SVSM: testFile(t, "svsm-16k.bin"), VarsSize: 8192, VCPUs: 2, VCPUType: "EPYC", GuestFeatures: 1}
	mustDigest(t, good)
	start := bytes.Index(good.SVSM, svsmInfoGUID[:]) - 6
	for name, test := range map[string]struct {
		spoil func(*Spec)
		want  error
	}{
		"none":                {func(s *Spec) { s.SVSM = nil }, ErrSpec},
		"no variables":        {func(s *Spec) { s.VarsSize = 0 }, ErrSpec},
		"negative variables":  {func(s *Spec) { s.VarsSize = -4096 }, ErrSpec},
		"half a page":         {func(s *Spec) { s.VarsSize = 2048 }, ErrSpec},
		"too many variables":  {func(s *Spec) { s.VarsSize = 1 << 40 }, ErrSpec},
		"firmware as an SVSM": {func(s *Spec) { s.SVSM = s.Firmware }, ErrNoResetVector},
		"start behind it":     {func(s *Spec) { s.SVSM = patched(s.SVSM, start, 0x4000) }, ErrNoResetVector},
		"no pages":            {func(s *Spec) { s.SVSM = append(make([]byte, 100), s.SVSM...) }, ErrSpec},
		"EC2":                 {func(s *Spec) { s.VMM = EC2 }, ErrSpec},
		"firmware hash":       {func(s *Spec) { s.OVMFHash = make([]byte, 48) }, ErrSpec},
	} {
		s := good
		test.spoil(&s)
		if digest, err := Digest(s); digest != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %x, %v", name, digest, err)
		}
	}
}

// FuzzSVSM expects an error or a digest for any module.
func FuzzSVSM(f *testing.F) {
	module := testFile(f, "svsm-16k.bin")
	f.Add(module, int64(8192))
	f.Add(module[8192:], int64(540672))
	f.Add(testFile(f, "amdsev-64k.fd"), int64(4096))
	firmware := testFile(f, "plain-64k.fd")
	f.Fuzz(func(t *testing.T, module []byte, vars int64) {
		s := Spec{Mode: SNPSVSM, Firmware: firmware, SVSM: module, VarsSize: vars, VCPUs: 1, VCPUType: "EPYC", GuestFeatures: 1}
		if digest, err := Digest(s); (err == nil) != (len(digest) == 48) {
			t.Errorf("%x, %v", digest, err)
		}
	})
}

// TestPageSums compares with hashing page by page, where some are equal.
func TestPageSums(t *testing.T) {
	for _, pages := range []int{0, 1, 3, 64, 65, 300} {
		data := make([]byte, pages*pageSize)
		for i := range pages {
			if i%3 == 0 {
				data[i*pageSize+i] = byte(i)
			}
		}
		sums := pageSums(data)
		if len(sums) != pages {
			t.Fatalf("%d sums of %d pages", len(sums), pages)
		}
		for i, sum := range sums {
			if sum != sha512.Sum384(data[i*pageSize:(i+1)*pageSize]) {
				t.Errorf("page %d of %d", i, pages)
			}
		}
	}
}

// padded is the test firmware at the size of a real one, 4 MiB.
func padded(b *testing.B) []byte {
	small := testFile(b, "amdsev-64k.fd")
	big := make([]byte, 4<<20-len(small))
	rand.NewChaCha8([32]byte{}).Read(big) // no two pages alike: the worst there is
	return append(big, small...)
}

// BenchmarkOneOfSet and BenchmarkSet belong together: 256 digests should cost no more than twice one.
func BenchmarkOneOfSet(b *testing.B) {
	s := Spec{Mode: SNP, Firmware: padded(b), VCPUs: 1, VCPUType: "EPYC-v4", GuestFeatures: 1}
	for b.Loop() {
		mustDigest(b, s)
	}
}

func BenchmarkSet(b *testing.B) {
	s := Spec{Mode: SNP, Firmware: padded(b), VCPUType: "EPYC-v4", GuestFeatures: 1}
	for b.Loop() {
		if set, err := DigestSet(s, upTo(64), Profiles()); len(set) != 256 || err != nil {
			b.Fatal(len(set), err)
		}
	}
}

// TestModuleWithOddArea has an area of no bytes at 0xdeadbeef, as Coconut-SVSM's own builds do.
func TestModuleWithOddArea(t *testing.T) {
	s := Spec{Mode: SNPSVSM, Firmware: testFile(t, "amdsev-64k.fd"), SVSM: testFile(t, "svsm-16k.bin"), VarsSize: 8192, VCPUs: 1, VCPUType: "EPYC", GuestFeatures: 1}
	area := ovmf.SecretAreaGUID
	entry := append([]byte{0xef, 0xbe, 0xad, 0xde, 0, 0, 0, 0, 26, 0}, area[:]...)
	end := len(s.SVSM) - 32 - 18 // where the table's entries end
	odd := bytes.Clone(s.SVSM)
	copy(odd[end-44-26:], odd[end-44:end]) // two entries of 22 bytes, moved down
	copy(odd[end-26:], entry)
	odd[end] += 26
	if _, err := ovmf.Parse(odd); err == nil {
		t.Fatal("the area is not odd")
	}
	s.SVSM = odd
	mustDigest(t, s)
}
