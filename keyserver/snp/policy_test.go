package snp

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

// strictPolicy asks for everything that can be asked for.
func strictPolicy() Policy {
	p := DefaultPolicy()
	p.Guest = GuestPolicy{MinABI: ABI{1, 55}, RequireSingleSocket: true, RequireAES256XTS: true, RequireRAPLDisabled: true,
		RequireCipherTextHiding: true, RequirePageSwapDisabled: true}
	p.Platform = Platform{RequireECC: true, RequireAliasCheck: true, Mitigations: 0x3}
	p.VMPL = []uint8{0, 2}
	p.Products = map[Product]Floor{
		Genoa: {TCB{Bootloader: 9, TEE: 0, SNP: 23, Microcode: 72}, Firmware{1, 55, 39}},
		Turin: {TCB{1, 1, 1, 4, 82}, Firmware{1, 58, 1}},
	}
	p.Reports = []uint8{5}
	p.Signers = []Signer{VLEK, VCEK}
	p.Revocation.MaxAge = 48 * time.Hour
	p.MinGuestSVN = 7
	p.IDKeys, p.AuthorKeys = Only(KeyDigest{1}, KeyDigest{2}), Only(KeyDigest{3})
	p.Chips, p.FamilyID, p.ImageID, p.HostData = Only(ChipID{4}), Only(GuestID{5}), Only(GuestID{6}), Only(HostData{7})
	return p
}

func TestPolicyJSON(t *testing.T) {
	for name, p := range map[string]Policy{"default": DefaultPolicy(), "strict": strictPolicy()} {
		if err := p.Validate(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var q Policy
		if err := json.Unmarshal(text, &q); err != nil || !reflect.DeepEqual(p, q) {
			t.Fatalf("%s: %+v became %+v: %v", name, p, q, err)
		}
		again, err := json.Marshal(q)
		if err != nil || string(again) != string(text) {
			t.Errorf("%s: %s became %s: %v", name, text, again, err)
		}
	}
}

// TestPolicySaysEverything takes each field out of a policy, at every depth, and writes each with another spelling, null and twice.
func TestPolicySaysEverything(t *testing.T) {
	text, err := json.Marshal(strictPolicy())
	if err != nil {
		t.Fatal(err)
	}
	var tree map[string]any
	if err := json.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	refuse := func(what string, want error) {
		t.Helper()
		spoiled, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		p := DefaultPolicy()
		if err := json.Unmarshal(spoiled, &p); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		} else if !reflect.DeepEqual(p, DefaultPolicy()) {
			t.Errorf("%s: refused, and yet the policy changed", what)
		}
	}
	fields := 0
	var spoil func(path string, object map[string]any)
	spoil = func(path string, object map[string]any) {
		for _, name := range keysOf(object) {
			value := object[name]
			if inner, ok := value.(map[string]any); ok {
				spoil(path+name+".", inner)
			}
			delete(object, name)
			if path != "products." {
				refuse(path+name+" missing", ErrNotSaid)
			}
			object[strings.ToUpper(name)] = value
			refuse(path+name+" in capitals", nil)
			delete(object, strings.ToUpper(name))
			object[name] = nil
			refuse(path+name+" null", nil)
			object[name] = value
			object["unknown"] = value
			refuse(path+"unknown", nil)
			delete(object, "unknown")
			fields++
		}
	}
	spoil("", tree)
	if fields < 40 {
		t.Errorf("only %d fields were spoiled", fields)
	}
	whole := string(text)
	for what, spoiled := range map[string]string{
		"field twice":          `{"vmpl":[0],` + whole[1:],
		"inner field twice":    strings.Replace(whole, `"allow_smt":`, `"allow_smt":true,"allow_smt":`, 1),
		"product twice":        strings.Replace(whole, `"Turin":{`, `"Genoa":{"firmware":"0.0.0","fmc":0,"bootloader":0,"tee":0,"snp":0,"microcode":0},"Turin":{`, 1),
		"capitals beside":      `{"VMPL":[3],` + whole[1:],
		"not any":              strings.Replace(whole, `"id_keys":[`, `"id_keys":"Any","x":[`, 1),
		"short digest":         strings.Replace(whole, `"chips":["04`, `"chips":["`, 1),
		"vmpl as base64":       strings.Replace(whole, `"vmpl":[0,2]`, `"vmpl":"AAI="`, 1),
		"vmpl of nine bits":    strings.Replace(whole, `"vmpl":[0,2]`, `"vmpl":[256]`, 1),
		"firmware of two":      strings.Replace(whole, `"1.58.1"`, `"1.58"`, 1),
		"firmware and more":    strings.Replace(whole, `"1.58.1"`, `"1.58.1 "`, 1),
		"mitigations, decimal": strings.Replace(whole, `"0x3"`, `"3"`, 1),
		"age without unit":     strings.Replace(whole, `"48h0m0s"`, `"48"`, 1),
		"null":                 `null`,
		"list":                 `[]`,
	} {
		if spoiled == whole {
			t.Fatalf("%s: nothing was spoiled", what)
		}
		p := DefaultPolicy()
		if err := p.UnmarshalJSON([]byte(spoiled)); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

func keysOf(m map[string]any) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	return keys
}

// TestPolicyValidate spoils a good policy, one thing at a time.
func TestPolicyValidate(t *testing.T) {
	for what, spoil := range map[string]func(*Policy){
		"no vmpl":               func(p *Policy) { p.VMPL = nil },
		"vmpl 4":                func(p *Policy) { p.VMPL = []uint8{4} },
		"vmpl twice":            func(p *Policy) { p.VMPL = []uint8{0, 0} },
		"no product":            func(p *Policy) { p.Products = nil },
		"unknown product":       func(p *Policy) { p.Products = map[Product]Floor{"Rome": {}} },
		"fmc of Milan":          func(p *Policy) { p.Products = map[Product]Floor{Milan: {TCB: TCB{FMC: 1}}} },
		"no report":             func(p *Policy) { p.Reports = nil },
		"report 4":              func(p *Policy) { p.Reports = []uint8{4} },
		"mitigations of report": func(p *Policy) { p.Platform.Mitigations = 1; p.Reports = []uint8{3, 5} },
		"no signer":             func(p *Policy) { p.Signers = nil },
		"unknown signer":        func(p *Policy) { p.Signers = []Signer{"none"} },
		"list of any age":       func(p *Policy) { p.Revocation.MaxAge = 0 },
		"list of two years":     func(p *Policy) { p.Revocation.MaxAge = 2 * maxAge },
		"age without list":      func(p *Policy) { p.Revocation.Required = false },
		"no id key":             func(p *Policy) { p.IDKeys = Allowed[KeyDigest]{} },
		"no chip":               func(p *Policy) { p.Chips = Allowed[ChipID]{} },
		"masked chip":           func(p *Policy) { p.Chips = Only(ChipID{}) },
		"chip twice":            func(p *Policy) { p.Chips = Only(ChipID{1}, ChipID{1}) },
		"any and a list":        func(p *Policy) { p.HostData = Allowed[HostData]{Any: true, List: []HostData{{1}}} },
	} {
		p := DefaultPolicy()
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		spoil(&p)
		if err := p.Validate(); !errors.Is(err, ErrPolicy) {
			t.Errorf("%s: %v", what, err)
		}
	}
	err := Policy{}.Validate()
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) < 10 {
		t.Errorf("the zero policy: %v", err)
	}
}

// TestDefaultPolicyFile keeps the default policy's form as a file to read and to start from.
func TestDefaultPolicyFile(t *testing.T) {
	text, err := json.MarshalIndent(DefaultPolicy(), "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	const name = "testdata/default-policy.json"
	kept, err := os.ReadFile(name)
	if err != nil || string(kept) != string(text)+"\n" {
		t.Errorf("%s is not the default policy (%v), which is\n%s", name, err, text)
	}
}
