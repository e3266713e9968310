package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/ovmf"
)

func testFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// goodSNP is a case that passes, for tests that spoil one thing.
func goodSNP(t testing.TB) Spec {
	t.Helper()
	return Spec{
		Mode: SNP, Firmware: testFile(t, "amdsev-64k.fd"), HashKernel: true, Kernel: []byte("kernel"),
		VCPUs: 2, VCPUType: "EPYC-v4", GuestFeatures: 1,
	}
}

func mustDigest(t testing.TB, s Spec) []byte {
	t.Helper()
	digest, err := Digest(s)
	if err != nil {
		t.Fatal(err)
	}
	return digest
}

// TestEveryInputCounts changes one thing at a time and expects another digest.
func TestEveryInputCounts(t *testing.T) {
	seen := map[string]string{}
	for name, change := range map[string]func(*Spec){
		"as it is":         func(*Spec) {},
		"firmware byte":    func(s *Spec) { s.Firmware = bytes.Clone(s.Firmware); s.Firmware[100] ^= 1 },
		"kernel":           func(s *Spec) { s.Kernel = []byte("kernem") },
		"empty kernel":     func(s *Spec) { s.Kernel = []byte{} },
		"no kernel":        func(s *Spec) { s.Kernel, s.HashKernel = nil, false },
		"initrd":           func(s *Spec) { s.Initrd, s.HasInitrd = []byte("i"), true },
		"command line":     func(s *Spec) { s.Append = "a" },
		"command line, sp": func(s *Spec) { s.Append = "a " },
		"one vCPU":         func(s *Spec) { s.VCPUs = 1 },
		"three vCPUs":      func(s *Spec) { s.VCPUs = 3 },
		"another type":     func(s *Spec) { s.VCPUType = "EPYC-Milan" },
		"features":         func(s *Spec) { s.GuestFeatures = 0x21 },
		"EC2":              func(s *Spec) { s.VMM = EC2 },
		"GCE":              func(s *Spec) { s.VMM = GCE },
		"old host":         func(s *Spec) { s.OldHostKernel = true },
		"SEV-ES":           func(s *Spec) { s.Mode, s.GuestFeatures = SEVES, 0 },
		"SEV-ES, swapped":  func(s *Spec) { s.Mode, s.GuestFeatures = SEVES, 0x20 },
		"SEV":              func(s *Spec) { s.Mode = SEV },
	} {
		s := goodSNP(t)
		change(&s)
		digest := mustDigest(t, s)
		if len(digest) != s.Mode.DigestSize() {
			t.Errorf("%s: %d bytes", name, len(digest))
		}
		if other := seen[string(digest)]; other != "" {
			t.Errorf("%s and %s have the same digest", name, other)
		}
		seen[string(digest)] = name
	}
	if len(seen) != 18 {
		t.Errorf("%d digests", len(seen))
	}
}

func TestNoInitrdIsAnEmptyOne(t *testing.T) {
	s := goodSNP(t)
	without := mustDigest(t, s)
	s.HasInitrd, s.Initrd = true, []byte{}
	if !bytes.Equal(mustDigest(t, s), without) {
		t.Error("an empty initrd has another digest than none")
	}
}

func TestSignatureInsteadOfType(t *testing.T) {
	s := goodSNP(t)
	byType := mustDigest(t, s)
	s.VCPUType, s.VCPUSignature = "", 0x800f12
	if !bytes.Equal(mustDigest(t, s), byType) {
		t.Error("EPYC-v4 is not signature 0x800f12")
	}
}

func TestVCPUTypes(t *testing.T) {
	types := VCPUTypes()
	if len(types) != 5+16+1 {
		t.Errorf("%d types: %q", len(types), types)
	}
	// AMD CPUID specification 25481: extended family, extended model, family, model, stepping.
	for name, want := range map[string]uint32{
		"EPYC": 0x800f12, "EPYC-IBPB": 0x800f12, "EPYC-Rome-v2": 0x830f10, "EPYC-Milan": 0xa00f11, "EPYC-Genoa-v1": 0xa10f10, "EPYC-Turin": 0xb00f00,
	} {
		if got, ok := VCPUSignature(name); got != want || !ok {
			t.Errorf("%s: %#x, %v; want %#x", name, got, ok, want)
		}
	}
	if sig, ok := VCPUSignature("Skylake"); ok || sig != 0 {
		t.Errorf("Skylake: %#x, %v", sig, ok)
	}
	if got := Signature(6, 0x2a, 7); got != 0x206a7 { // a family that needs no extension
		t.Errorf("family 6: %#x", got)
	}
}

// TestKernelHashesTable checks the table field by field against QEMU's layout.
func TestKernelHashesTable(t *testing.T) {
	table := KernelHashes([]byte("k"), nil, "quiet")
	if len(table) != 176 {
		t.Fatalf("%d bytes", len(table))
	}
	entries := 0
	check := func(at int, id string, length uint16) {
		t.Helper()
		if got := guid.GUID(table[at : at+16]); got != guid.MustParse(id) || binary.LittleEndian.Uint16(table[at+16:]) != length {
			t.Errorf("at %d: %v", at, got)
		}
		entries++
	}
	check(0, "9438d606-4f22-4cc9-b479-a793d411fd21", 168)
	check(18, "97d02dd8-bd20-4c94-aa78-e7714d36ab2a", 50)
	check(68, "44baf731-3a2f-4bd7-9af1-41e29169781d", 50)
	check(118, "4de79437-abd2-427f-b835-d5b172d2045b", 50)
	for at, data := range map[int]string{36: "quiet\x00", 86: "", 136: "k"} {
		if want := sha256.Sum256([]byte(data)); !bytes.Equal(table[at:at+32], want[:]) {
			t.Errorf("hash of %q at %d", data, at)
		}
		entries++
	}
	if entries != 7 || !bytes.Equal(table[168:], make([]byte, 8)) {
		t.Errorf("%d entries checked, padding %x", entries, table[168:])
	}
}

func TestSpecRefusals(t *testing.T) {
	good := goodSNP(t)
	mustDigest(t, good)
	for name, spoil := range map[string]func(*Spec){
		"no mode":                func(s *Spec) { s.Mode = "" },
		"unknown mode":           func(s *Spec) { s.Mode = "tdx" },
		"SNP itself in SEV-ES":   func(s *Spec) { s.Mode = SEVES },
		"SVSM in mode snp":       func(s *Spec) { s.SVSM = []byte{1} },
		"half a register file":   func(s *Spec) { s.X87Unset = true },
		"no firmware":            func(s *Spec) { s.Firmware = nil },
		"kernel not hashed":      func(s *Spec) { s.HashKernel = false },
		"hashing nothing":        func(s *Spec) { s.Kernel = nil },
		"initrd without kernel":  func(s *Spec) { s.Kernel, s.HashKernel, s.HasInitrd = nil, false, true },
		"append without kernel":  func(s *Spec) { s.Kernel, s.HashKernel, s.Append = nil, false, "a" },
		"initrd not announced":   func(s *Spec) { s.Initrd = []byte("i") },
		"NUL in command line":    func(s *Spec) { s.Append = "a\x00" },
		"unknown hypervisor":     func(s *Spec) { s.VMM = "xen" },
		"no vCPU":                func(s *Spec) { s.VCPUs = 0 },
		"negative vCPUs":         func(s *Spec) { s.VCPUs = -1 },
		"too many vCPUs":         func(s *Spec) { s.VCPUs = maxVCPUs + 1 },
		"no vCPU type":           func(s *Spec) { s.VCPUType = "" },
		"unknown vCPU type":      func(s *Spec) { s.VCPUType = "EPYC-v99" },
		"type and signature":     func(s *Spec) { s.VCPUSignature = 1 },
		"firmware hash in SEV":   func(s *Spec) { s.Mode, s.OVMFHash = SEV, make([]byte, 48) },
		"short firmware hash":    func(s *Spec) { s.OVMFHash = make([]byte, 47) },
		"empty firmware hash":    func(s *Spec) { s.OVMFHash = []byte{} },
		"firmware of half pages": func(s *Spec) { s.Firmware = s.Firmware[100:] },
	} {
		s := good
		spoil(&s)
		if digest, err := Digest(s); digest != nil || !errors.Is(err, ErrSpec) {
			t.Errorf("%s: %x, %v", name, digest, err)
		}
	}
	if err := (Spec{VCPUs: -1, Append: "a\x00"}).Validate(); len(strings.Split(err.Error(), "\n")) < 4 {
		t.Errorf("not every complaint at once: %v", err)
	}
}

// Places in testdata/amdsev-64k.fd, whose table ends 32 bytes before its end.
const (
	resetAt  = 65536 - 32 - 18 - 22
	secretAt = resetAt - 26
	hashesAt = secretAt - 26
	metaAt   = 65536 - 0x800
)

// patched gives the firmware with one u32 changed.
func patched(firmware []byte, at int, value uint32) []byte {
	b := bytes.Clone(firmware)
	binary.LittleEndian.PutUint32(b[at:], value)
	return b
}

// TestFirmwareRefusals changes one value in the firmware's tables.
func TestFirmwareRefusals(t *testing.T) {
	good := goodSNP(t)
	mustDigest(t, good)
	section := func(i int) int { return metaAt + 16 + 12*i } // 2 is secrets, 3 CPUID, 5 kernel hashes
	for _, test := range []struct {
		name  string
		mode  Mode
		at    int
		value uint32
		want  error
	}{
		{"no reset vector", SNP, resetAt, 0, ErrNoResetVector},
		{"no reset vector", SEVES, resetAt, 0, ErrNoResetVector},
		{"hashes area too small", SEV, hashesAt + 4, 175, ErrNoKernelHashes},
		{"hashes area too small", SNP, hashesAt + 4, 175, ErrNoKernelHashes},
		{"hashes area in another page", SNP, hashesAt, 0x80fc00, ErrNoKernelHashes},
		{"hashes area at the page's end", SNP, hashesAt, 0x810f51, ErrNoKernelHashes},
		{"kernel hashes of two pages", SNP, section(5) + 4, 0x2000, ErrNoKernelHashes},
		{"no kernel-hashes section", SNP, section(5) + 8, 1, ErrNoKernelHashes},
		{"unknown section", SNP, section(5) + 8, 0x11, ErrSpec},
		{"CPUID of two pages", SNP, section(3) + 4, 0x2000, ErrSpec},
		{"secrets of two pages", SNP, section(2) + 4, 0x2000, ErrSpec},
		{"too much to measure", SNP, section(0) + 4, 0x7f000000, ErrSpec},
	} {
		s := good
		if s.Mode = test.mode; s.Mode == SEVES {
			s.GuestFeatures = 0
		}
		s.Firmware = patched(good.Firmware, test.at, test.value)
		if digest, err := Digest(s); digest != nil || !errors.Is(err, test.want) {
			t.Errorf("%s, %s: %x, %v; want %v", test.mode, test.name, digest, err, test.want)
		}
	}
	for _, mode := range Modes() {
		s := Spec{Mode: mode, Firmware: make([]byte, 65536), VCPUs: 1, VCPUType: "EPYC"}
		if mode == SNPSVSM {
			s.SVSM, s.VarsSize = testFile(t, "svsm-16k.bin"), pageSize
		}
		if digest, err := Digest(s); digest != nil || !errors.Is(err, ovmf.ErrNotOVMF) {
			t.Errorf("%s: %x, %v", mode, digest, err)
		}
	}
	// One vCPU needs no reset vector.
	good.VCPUs, good.Firmware = 1, patched(good.Firmware, resetAt, 0)
	mustDigest(t, good)
}

func FuzzDigest(f *testing.F) {
	firmware := testFile(f, "amdsev-64k.fd")
	f.Add(firmware[len(firmware)-0x1000:], "quiet", byte(0))
	f.Add(firmware[len(firmware)-0x1000:], "", byte(1))
	f.Add(testFile(f, "plain-64k.fd")[61440:], "", byte(2))
	f.Fuzz(func(t *testing.T, firmware []byte, cmdline string, mode byte) {
		modes := []Mode{SEV, SEVES, SNP, SNPOVMFHash}
		s := Spec{Mode: modes[int(mode)%4], Firmware: firmware, Kernel: []byte{}, HashKernel: true, Append: cmdline, VCPUs: 2, VCPUType: "EPYC"}
		digest, err := Digest(s)
		if err != nil && digest != nil {
			t.Fatal("a digest and an error")
		}
		if err == nil && len(digest) != s.Mode.DigestSize() {
			t.Fatalf("digest of %d bytes", len(digest))
		}
	})
}

func BenchmarkDigest(b *testing.B) {
	firmware := make([]byte, 4<<20)
	tail := testFile(b, "amdsev-64k.fd")
	copy(firmware[len(firmware)-len(tail):], tail)
	for _, mode := range []Mode{SEV, SEVES, SNP} {
		s := Spec{Mode: mode, Firmware: firmware, VCPUs: 4, VCPUType: "EPYC-v4", GuestFeatures: 1}
		if mode == SEVES {
			s.GuestFeatures = 0
		}
		b.Run(string(mode), func(b *testing.B) {
			b.SetBytes(int64(len(firmware)))
			for b.Loop() {
				mustDigest(b, s)
			}
		})
	}
}

// TestFirmwareSHA256 gives Digest a hash that has taken the firmware, as a caller does that hashes while it reads.
func TestFirmwareSHA256(t *testing.T) {
	snp := goodSNP(t)
	es := Spec{Mode: SEVES, Firmware: snp.Firmware, VCPUs: snp.VCPUs, VCPUType: snp.VCPUType}
	for _, s := range []Spec{es, {Mode: SEV, Firmware: snp.Firmware}} {
		want := mustDigest(t, s)
		s.FirmwareSHA256 = sha256.New()
		if bytes.Equal(mustDigest(t, s), want) {
			t.Errorf("%s: the hash was not looked at", s.Mode)
		}
		s.FirmwareSHA256 = sha256.New()
		s.FirmwareSHA256.Write(s.Firmware)
		if !bytes.Equal(mustDigest(t, s), want) {
			t.Errorf("%s: another digest", s.Mode)
		}
	}
	snp.FirmwareSHA256 = sha256.New()
	if _, err := Digest(snp); !errors.Is(err, ErrSpec) {
		t.Errorf("mode %s with a SHA-256: %v", snp.Mode, err)
	}
}
