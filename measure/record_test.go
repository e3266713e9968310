package measure

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/ovmf"
)

var testDisk = Disk{UUID: "c0ffee00-84f0-4973-92ec-06879ce3da0b", HeaderPin: Hash{1, 2, 3}, ContentDigest: Hash{4}}

func goodRecord(t testing.TB) *Record {
	t.Helper()
	snp := goodSNP(t)
	sev := Spec{Mode: SEV, Firmware: snp.Firmware}
	es := Spec{Mode: SEVES, Firmware: snp.Firmware, VCPUs: 1, VCPUType: "EPYC"}
	sig := Spec{Mode: SEVES, Firmware: snp.Firmware, VCPUs: 2, VCPUSignature: 0x800f12}
	ec2 := Spec{Mode: SNP, Firmware: snp.Firmware, VCPUs: 1, VMM: EC2}
	r, err := NewRecord([]Spec{sev, es, sig, snp, ec2}, testDisk, map[string]string{"sealboot": "v0", "grub": "2.12 <x> & y"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func goodRecordText(t testing.TB) string {
	t.Helper()
	text, err := goodRecord(t).Encode()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRecordRoundTrip(t *testing.T) {
	text := goodRecordText(t)
	r, err := ReadRecord(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.Encode()
	if err != nil || string(again) != text {
		t.Errorf("%v: %s\nbecame\n%s", err, text, again)
	}
	if len(r.Digests) != 5 || r.Disk != testDisk || r.Firmware.SecretArea != (ovmf.Area{Base: 0x810000, Size: 0xc00}) ||
		*r.Firmware.HashesArea != (ovmf.Area{Base: 0x810c00, Size: 0x400}) || r.Firmware.Size != 65536 {
		t.Errorf("read %+v", r)
	}
	for i := range 3 { // map order must not reach the bytes
		if goodRecordText(t) != text {
			t.Fatalf("attempt %d has other bytes", i)
		}
	}
}

func TestRecordAdd(t *testing.T) {
	r := goodRecord(t)
	s := goodSNP(t)
	if err := r.Add(s); err != nil || len(r.Digests) != 5 {
		t.Errorf("the same launch again: %v, %d digests", err, len(r.Digests))
	}
	s.VCPUs = 8
	if err := r.Add(s); err != nil || len(r.Digests) != 6 || !bytes.Equal(r.Digests[5].Digest, mustDigest(t, s)) {
		t.Errorf("another launch: %v, %d digests", err, len(r.Digests))
	}
	s.Kernel = []byte("another")
	if err := r.Add(s); err != nil || len(r.Digests) != 7 {
		t.Errorf("another kernel: %v, %d digests", err, len(r.Digests))
	}
	other := s
	other.Firmware = patched(s.Firmware, 0, 7)
	if err := r.Add(other); !errors.Is(err, ErrRecord) {
		t.Errorf("another firmware: %v", err)
	}
	if err := r.Add(Spec{Mode: SNPOVMFHash, Firmware: s.Firmware}); !errors.Is(err, ErrRecord) {
		t.Errorf("no whole launch: %v", err)
	}
	s.OVMFHash = make([]byte, 48)
	if err := r.Add(s); !errors.Is(err, ErrRecord) {
		t.Errorf("a firmware hash from elsewhere: %v", err)
	}
	s.OVMFHash, s.VCPUs = nil, 0
	if err := r.Add(s); !errors.Is(err, ErrSpec) {
		t.Errorf("bad description: %v", err)
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
}

func TestNewRecordRefusals(t *testing.T) {
	good := goodSNP(t)
	plain := Spec{Mode: SEV, Firmware: testFile(t, "plain-64k.fd")}
	for name, test := range map[string]struct {
		specs []Spec
		disk  Disk
		want  error
	}{
		"nothing":        {nil, testDisk, ErrRecord},
		"no secret area": {[]Spec{plain}, testDisk, ovmf.ErrNoSecretArea},
		"not OVMF":       {[]Spec{{Mode: SEV, Firmware: make([]byte, 4096)}}, testDisk, ovmf.ErrNotOVMF},
		"two firmwares":  {[]Spec{good, plain}, testDisk, ErrRecord},
		"no disk":        {[]Spec{good}, Disk{}, ErrRecord},
	} {
		if r, err := NewRecord(test.specs, test.disk, nil); r != nil || !errors.Is(err, test.want) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestRecordRefusals(t *testing.T) {
	if err := goodRecord(t).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*Record){
		"version":            func(r *Record) { r.Version = 2 },
		"no firmware hash":   func(r *Record) { r.Firmware.SHA256 = Hash{} },
		"firmware size":      func(r *Record) { r.Firmware.Size = 0 },
		"no secret area":     func(r *Record) { r.Firmware.SecretArea = ovmf.Area{} },
		"empty hashes area":  func(r *Record) { r.Firmware.HashesArea = &ovmf.Area{Base: 1} },
		"no digest":          func(r *Record) { r.Digests = nil },
		"short digest":       func(r *Record) { r.Digests[0].Digest = r.Digests[0].Digest[:31] },
		"empty digest":       func(r *Record) { r.Digests[0].Digest = nil },
		"zero digest":        func(r *Record) { r.Digests[0].Digest = make([]byte, 32) },
		"unknown mode":       func(r *Record) { r.Digests[0].Mode = "tdx" },
		"no launch":          func(r *Record) { r.Digests[3].Mode = SNPOVMFHash },
		"vCPUs in SEV":       func(r *Record) { r.Digests[0].VCPUs = 1 },
		"no vCPUs in ES":     func(r *Record) { r.Digests[1].VCPUs = 0 },
		"unknown vCPU type":  func(r *Record) { r.Digests[1].VCPUType = "x" },
		"features in ES":     func(r *Record) { r.Digests[1].GuestFeatures = 1 },
		"type and signature": func(r *Record) { r.Digests[1].VCPUSignature = 0x800f12 },
		"QEMU spelled out":   func(r *Record) { r.Digests[1].VMM = QEMU },
		"short kernel hash":  func(r *Record) { r.Digests[3].KernelHashes = r.Digests[3].KernelHashes[:31] },
		"same launch twice":  func(r *Record) { r.Digests = append(r.Digests, r.Digests[1]) },
		"no UUID":            func(r *Record) { r.Disk.UUID = "" },
		"UUID in capitals":   func(r *Record) { r.Disk.UUID = strings.ToUpper(r.Disk.UUID) },
		"no pin":             func(r *Record) { r.Disk.HeaderPin = Hash{} },
		"made with nothing":  func(r *Record) { r.MadeWith = nil },
	} {
		r := goodRecord(t)
		spoil(r)
		if text, err := r.Encode(); text != nil || !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %q, %v", name, text, err)
		}
	}
}

func TestReadRecordRefusals(t *testing.T) {
	text := goodRecordText(t)
	if _, err := ReadRecord(strings.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	pin := testDisk.HeaderPin.String()
	for name, bad := range map[string]string{
		"nothing":           "",
		"empty object":      "{}\n",
		"null":              "null\n",
		"unknown field":     strings.Replace(text, `"version": 1,`, `"version": 1, "policy": "none",`, 1),
		"field twice":       strings.Replace(text, `"version": 1,`, `"version": 1, "version": 1,`, 1),
		"field in capitals": strings.Replace(text, `"disk"`, `"Disk"`, 1),
		"other order":       strings.Replace(strings.Replace(text, `"size": 65536,`, ``, 1), `"secret_area"`, `"size": 65536, "secret_area"`, 1),
		"other spaces":      strings.Replace(text, `"version": 1,`, `"version":1,`, 1),
		"number as text":    strings.Replace(text, `"version": 1,`, `"version": "1",`, 1),
		"version 2":         strings.Replace(text, `"version": 1,`, `"version": 2,`, 1),
		"no newline":        text[:len(text)-1],
		"second record":     text + text,
		"trailing byte":     text + " ",
		"capital digits":    strings.Replace(text, pin, strings.ToUpper("ab")+pin[2:], 1),
		"short pin":         strings.Replace(text, pin, pin[2:], 1),
		"cut":               text[:len(text)/2],
		"too long":          text + strings.Repeat(" ", maxRecord),
	} {
		if bad == text {
			t.Fatalf("%s: nothing was spoiled", name)
		}
		if r, err := ReadRecord(strings.NewReader(bad)); r != nil || !errors.Is(err, ErrRecord) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func FuzzReadRecord(f *testing.F) {
	f.Add(goodRecordText(f))
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ReadRecord(strings.NewReader(text))
		if err != nil {
			if r != nil {
				t.Fatal("a record and an error")
			}
			return
		}
		if again, err := r.Encode(); err != nil || string(again) != text {
			t.Fatalf("%v: %q became %q", err, text, again)
		}
	})
}
