package keyserver

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/sev"
)

// strictPolicy restricts everything that can be.
func strictPolicy() Policy {
	p := DefaultPolicy()
	p.SEV.Guest |= sev.ES
	p.SEV.MinAPI = Only(testAPI)
	s := snp.DefaultPolicy()
	p.SNP = &s
	p.Platforms = Only([]string{strings.Repeat("0a", 32), strings.Repeat("b1", 64)})
	p.NotBefore, p.NotAfter = Only(time.Unix(1_700_000_000, 0).UTC()), Only(time.Unix(1_900_000_000, 0).UTC())
	p.Releases = Only(int64(3))
	p.Networks = Only([]netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/32")})
	return p
}

// TestPolicyDocument writes policies down and reads them again, with and without white space.
func TestPolicyDocument(t *testing.T) {
	const least = `{"sev":{"guest_policy":["nodbg","noks","nosend"],"min_api":"any"},"platforms":"any","not_before":"always",` +
		`"not_after":"always","releases":"unlimited","networks":"any"}`
	text, err := DefaultPolicy().Encode()
	must(t, err)
	if string(text) != least {
		t.Errorf("the least policy is %s", text)
	}
	for name, p := range map[string]Policy{"default": DefaultPolicy(), "strict": strictPolicy()} {
		text, err := p.Encode()
		must(t, err)
		again, err := DecodePolicy(text)
		must(t, err)
		if !reflect.DeepEqual(p, again) {
			t.Errorf("%s: %s\nis read as %+v", name, text, again)
		}
		indented, err := json.MarshalIndent(json.RawMessage(text), "", "  ")
		must(t, err)
		if again, err = ReadPolicy(strings.NewReader(string(indented) + "\n")); err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%s, indented: %+v, %v", name, again, err)
		}
	}
}

// TestPolicySaysEverything leaves each field out: that is never "not checked".
func TestPolicySaysEverything(t *testing.T) {
	text, err := strictPolicy().Encode()
	must(t, err)
	var tree map[string]json.RawMessage
	must(t, json.Unmarshal(text, &tree))
	tried := 0
	for name, value := range tree {
		without := strings.Replace(string(text), `"`+name+`":`+string(value), "", 1)
		without = strings.NewReplacer("{,", "{", ",,", ",", ",}", "}").Replace(without)
		p, err := DecodePolicy([]byte(without))
		if way := name == "sev" || name == "snp"; way != (err == nil) || !way && !errors.Is(err, ErrNotSaid) {
			t.Errorf("without %s: %+v, %v", name, p, err)
		}
		tried++
	}
	if tried != 7 {
		t.Errorf("%d fields were left out", tried)
	}
	err = (Policy{}).Validate()
	for _, want := range []string{"neither sev nor snp", "platforms", "not_before", "not_after", "releases", "networks"} {
		if !errors.Is(err, ErrNotSaid) || !strings.Contains(err.Error(), want) {
			t.Errorf("an empty policy is not told of %q: %v", want, err)
		}
	}
}

// TestPolicyForm spoils a good document.
func TestPolicyForm(t *testing.T) {
	good, err := strictPolicy().Encode()
	must(t, err)
	whole := string(good)
	for _, bad := range []struct {
		name, from, to string
		want           error
	}{
		{"unknown field", `{"sev"`, `{"x":1,"sev"`, ErrPolicyForm},
		{"field twice", `"releases":3`, `"releases":3,"releases":3`, ErrPolicyForm},
		{"weaker field before", `"releases":3`, `"releases":"unlimited","releases":3`, ErrPolicyForm},
		{"in capitals", `"releases"`, `"Releases"`, ErrPolicyForm},
		{"white space", `"releases":3`, `"releases": 3`, ErrPolicyForm},
		{"inner field twice", `"min_build":21`, `"min_build":0,"min_build":21`, ErrPolicyForm},
		{"null", `"networks":[`, `"networks":null,"x":[`, ErrPolicyForm},
		{"null instead", `"releases":3`, `"releases":null`, ErrPolicy},
		{"other word", `"releases":3`, `"releases":"any"`, ErrPolicyForm},
		{"no release", `"releases":3`, `"releases":0`, ErrPolicy},
		{"releases below zero", `"releases":3`, `"releases":-1`, ErrPolicy},
		{"releases with exponent", `"releases":3`, `"releases":3e0`, ErrPolicyForm},
		{"no networks", `"networks":["192.0.2.0/24","2001:db8::/32"]`, `"networks":[]`, ErrPolicy},
		{"network with host bits", `192.0.2.0/24`, `192.0.2.1/24`, ErrPolicy},
		{"network twice", `2001:db8::/32`, `192.0.2.0/24`, ErrPolicy},
		{"mapped network", `192.0.2.0/24`, `::ffff:192.0.2.0/120`, ErrPolicy},
		{"address for a network", `192.0.2.0/24`, `192.0.2.0`, ErrPolicyForm},
		{"time with a fraction", `"2023-11-14T22:13:20Z"`, `"2023-11-14T22:13:20.5Z"`, ErrPolicy},
		{"time of another zone", `"2023-11-14T22:13:20Z"`, `"2023-11-14T23:13:20+01:00"`, ErrPolicyForm},
		{"over before it begins", `"2023-11-14T22:13:20Z"`, `"2033-11-14T22:13:20Z"`, ErrPolicy},
		{"chip in capitals", `"0a0a`, `"0A0a`, ErrPolicy},
		{"chip of 63 digits", `"0a0a`, `"a0a`, ErrPolicy},
		{"debugging allowed", `"nodbg",`, ``, ErrPolicy},
		{"key sharing allowed", `"noks",`, ``, ErrPolicy},
		{"sending allowed", `,"nosend"`, ``, ErrPolicy},
		{"unknown bit", `"nodbg"`, `"debug"`, ErrPolicyForm},
		{"bit twice", `"noks"`, `"noks","noks"`, ErrPolicyForm},
		{"API of three", `"1.55"`, `"1.55.2"`, ErrPolicyForm},
		{"API with a zero in front", `"1.55"`, `"1.055"`, ErrPolicyForm},
		{"API of nine bits", `"1.55"`, `"1.256"`, ErrPolicyForm},
		{"no minimum API", `"min_api":"1.55",`, ``, ErrNotSaid},
		{"no minimum build", `,"min_build":21`, ``, ErrNotSaid},
		{"a build of any API", `"1.55"`, `"any"`, ErrNotSaid},
		{"SNP without a field", `"vmpl":[0],`, ``, ErrPolicyForm},
		{"trailing byte", `"2001:db8::/32"]}`, `"2001:db8::/32"]}` + "\n", ErrPolicyForm},
		{"second document", `"2001:db8::/32"]}`, `"2001:db8::/32"]}{}`, ErrPolicyForm},
	} {
		t.Run(bad.name, func(t *testing.T) {
			text := strings.Replace(whole, bad.from, bad.to, 1)
			if text == whole {
				t.Fatal("nothing was spoiled")
			}
			if p, err := DecodePolicy([]byte(text)); !errors.Is(err, bad.want) || !reflect.DeepEqual(p, Policy{}) {
				t.Errorf("%+v, %v; want %v", p, err, bad.want)
			}
		})
	}
	if _, err := ReadPolicy(strings.NewReader(strings.Repeat(" ", MaxPolicy) + whole)); !errors.Is(err, ErrPolicyForm) {
		t.Errorf("too large: %v", err)
	}
	deep := strings.Replace(whole, `"releases":3`, `"releases":`+strings.Repeat("[", 100_000), 1)
	if _, err := ReadPolicy(strings.NewReader(deep)); !errors.Is(err, ErrPolicyForm) {
		t.Errorf("deep: %v", err)
	}
	// All complaints come at once.
	worst := strings.NewReplacer(`"nodbg",`, ``, `"releases":3,`, ``, `192.0.2.0/24`, `192.0.2.9/24`).Replace(whole)
	_, err = DecodePolicy([]byte(worst))
	for _, want := range []string{"debugging", "releases is missing", "192.0.2.9/24"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no complaint about %q: %v", want, err)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	for _, p := range []Policy{DefaultPolicy(), strictPolicy()} {
		text, err := p.Encode()
		must(f, err)
		f.Add(text)
		f.Add(text[:len(text)/2])
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := DecodePolicy(text)
		if err != nil {
			if !reflect.DeepEqual(p, Policy{}) {
				t.Fatal("a policy came with the error")
			}
			return
		}
		must(t, p.Validate())
		again, err := p.Encode()
		if err != nil || string(again) != string(text) {
			t.Fatalf("%s became %s: %v", text, again, err)
		}
	})
}
