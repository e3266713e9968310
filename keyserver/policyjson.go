package keyserver

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/sev"
)

// Words of a policy's document for "no restriction".
const (
	anyWord       = "any"
	alwaysWord    = "always"
	unlimitedWord = "unlimited"
)

// MaxPolicy bounds a policy's document, in bytes.
const MaxPolicy = 512 << 10

// ErrPolicyForm says that a text is no policy's document.
var ErrPolicyForm = errors.New("not a policy")

// policyJSON is the document. Fields that are not there stay nil, and are then not said.
type policyJSON struct {
	SEV       *sevPolicyJSON  `json:"sev,omitempty"`
	SNP       json.RawMessage `json:"snp,omitempty"`
	Platforms json.RawMessage `json:"platforms,omitempty"`
	NotBefore json.RawMessage `json:"not_before,omitempty"`
	NotAfter  json.RawMessage `json:"not_after,omitempty"`
	Releases  json.RawMessage `json:"releases,omitempty"`
	Networks  json.RawMessage `json:"networks,omitempty"`
}

type sevPolicyJSON struct {
	Guest    []string        `json:"guest_policy"`
	MinAPI   json.RawMessage `json:"min_api,omitempty"`
	MinBuild json.RawMessage `json:"min_build,omitempty"`
}

// guestBits are the names of a guest policy's bits, in the order of the bits.
var guestBits = []struct {
	name string
	bit  sev.Policy
}{{"nodbg", sev.NoDebug}, {"noks", sev.NoKeySharing}, {"es", sev.ES}, {"nosend", sev.NoSend}, {"domain", sev.Domain}, {"sev", sev.SEV}}

// Encode gives the policy's document in its one form: JSON without white space, with the fields in their order. It refuses
// what Validate refuses.
func (p Policy) Encode() ([]byte, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	var j policyJSON
	var err error
	if p.SEV != nil {
		if j.SEV, err = p.SEV.form(); err != nil {
			return nil, err
		}
	}
	if p.SNP != nil {
		if j.SNP, err = json.Marshal(p.SNP); err != nil {
			return nil, fmt.Errorf("write policy: %w", err)
		}
	}
	for _, field := range []struct {
		to  *json.RawMessage
		put func() (json.RawMessage, error)
	}{
		{&j.Platforms, func() (json.RawMessage, error) { return written(p.Platforms, anyWord) }},
		{&j.NotBefore, func() (json.RawMessage, error) { return written(p.NotBefore, alwaysWord) }},
		{&j.NotAfter, func() (json.RawMessage, error) { return written(p.NotAfter, alwaysWord) }},
		{&j.Releases, func() (json.RawMessage, error) { return written(p.Releases, unlimitedWord) }},
		{&j.Networks, func() (json.RawMessage, error) { return written(p.Networks, anyWord) }},
	} {
		if *field.to, err = field.put(); err != nil {
			return nil, fmt.Errorf("write policy: %w", err)
		}
	}
	text, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("write policy: %w", err)
	}
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrPolicyForm, MaxPolicy)
	}
	return text, nil
}

func (p SEVPolicy) form() (*sevPolicyJSON, error) {
	j := &sevPolicyJSON{Guest: []string{}}
	for _, b := range guestBits {
		if p.Guest.Has(b.bit) {
			j.Guest = append(j.Guest, b.name)
		}
	}
	oldest, only := p.MinAPI.Value()
	version := anyWord
	if only {
		version = fmt.Sprintf("%d.%d", oldest.Major, oldest.Minor)
		j.MinBuild = json.RawMessage(strconv.Itoa(int(oldest.Build)))
	}
	var err error
	j.MinAPI, err = json.Marshal(version)
	return j, err
}

func written[T any](l Limit[T], none string) (json.RawMessage, error) {
	v, only := l.Value()
	if !only {
		return json.Marshal(none)
	}
	if t, ok := any(v).(time.Time); ok {
		return json.Marshal(t.UTC().Format(time.RFC3339))
	}
	return json.Marshal(v)
}

// DecodePolicy takes what Encode gives and nothing else, so that a policy has one form only.
func DecodePolicy(text []byte) (Policy, error) {
	if len(text) > MaxPolicy {
		return Policy{}, fmt.Errorf("%w: more than %d bytes", ErrPolicyForm, MaxPolicy)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var j policyJSON
	if err := d.Decode(&j); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicyForm, err)
	}
	p, err := j.policy()
	if err = errors.Join(err, p.Validate()); err != nil {
		return Policy{}, err
	}
	again, err := p.Encode()
	if err != nil {
		return Policy{}, err
	}
	if !bytes.Equal(again, text) {
		return Policy{}, fmt.Errorf("%w: it is not in its one form: a field is there twice, out of order or spelled otherwise, "+
			"a value could be written shorter, or something follows; it would be %s", ErrPolicyForm, clip(again))
	}
	return p, nil
}

// ReadPolicy takes a document as people write it: as DecodePolicy does, but with white space between the values.
func ReadPolicy(in io.Reader) (Policy, error) {
	raw, err := io.ReadAll(io.LimitReader(in, MaxPolicy+1))
	if err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	if len(raw) > MaxPolicy {
		return Policy{}, fmt.Errorf("%w: more than %d bytes", ErrPolicyForm, MaxPolicy)
	}
	var text bytes.Buffer
	if err := json.Compact(&text, raw); err != nil {
		return Policy{}, fmt.Errorf("%w: %w", ErrPolicyForm, err)
	}
	return DecodePolicy(text.Bytes())
}

// policy reads the fields that are there, with every complaint about them; Validate complains of those that are not.
func (j policyJSON) policy() (p Policy, err error) {
	var complaints []error
	read := func(name string, err error) {
		if err != nil {
			complaints = append(complaints, fmt.Errorf("%w: %s: %w", ErrPolicyForm, name, err))
		}
	}
	if j.SEV != nil {
		p.SEV, err = j.SEV.policy()
		read("sev", err)
	}
	if j.SNP != nil {
		p.SNP = new(snp.Policy)
		read("snp", json.Unmarshal(j.SNP, p.SNP))
	}
	p.Platforms, err = restriction(j.Platforms, anyWord, list[string])
	read("platforms", err)
	p.NotBefore, err = restriction(j.NotBefore, alwaysWord, moment)
	read("not_before", err)
	p.NotAfter, err = restriction(j.NotAfter, alwaysWord, moment)
	read("not_after", err)
	p.Releases, err = restriction(j.Releases, unlimitedWord, func(b []byte) (n int64, err error) { return n, json.Unmarshal(b, &n) })
	read("releases", err)
	p.Networks, err = restriction(j.Networks, anyWord, list[netip.Prefix])
	read("networks", err)
	return p, errors.Join(complaints...)
}

func (j sevPolicyJSON) policy() (*SEVPolicy, error) {
	p := new(SEVPolicy)
	for _, name := range j.Guest {
		known := false
		for _, b := range guestBits {
			if b.name == name {
				p.Guest |= b.bit
				known = true
			}
		}
		if !known {
			return nil, fmt.Errorf("guest_policy: %q is not known", clean(name))
		}
	}
	build, err := restriction(j.MinBuild, "", func(b []byte) (n uint8, err error) { return n, json.Unmarshal(b, &n) })
	if err != nil {
		return nil, fmt.Errorf("min_build: %w", err)
	}
	p.MinAPI, err = restriction(j.MinAPI, anyWord, func(b []byte) (api sev.API, err error) {
		var text string
		if err := json.Unmarshal(b, &text); err != nil {
			return api, err
		}
		major, minor, ok := strings.Cut(text, ".")
		x, errX := strconv.ParseUint(major, 10, 8)
		y, errY := strconv.ParseUint(minor, 10, 8)
		if !ok || errX != nil || errY != nil {
			return api, errors.New("want MAJOR.MINOR")
		}
		return sev.API{Major: uint8(x), Minor: uint8(y), Build: build.value}, nil
	})
	if err != nil {
		return nil, fmt.Errorf("min_api: %w", err)
	}
	if _, only := p.MinAPI.Value(); only != build.said {
		return nil, fmt.Errorf("%w: min_build must be there with a min_api, and only then", ErrNotSaid)
	}
	return p, nil
}

// restriction reads one restriction; nil stays unsaid.
func restriction[T any](b json.RawMessage, none string, read func([]byte) (T, error)) (Limit[T], error) {
	if b == nil {
		return Limit[T]{}, nil
	}
	if none != "" && string(b) == strconv.Quote(none) {
		return Any[T](), nil
	}
	v, err := read(b)
	if err != nil {
		return Limit[T]{}, err
	}
	return Only(v), nil
}

func list[T any](b []byte) (l []T, err error) { return l, json.Unmarshal(b, &l) }

func moment(b []byte) (time.Time, error) {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return time.Time{}, err
	}
	t, err := time.Parse(time.RFC3339, text)
	return t.UTC(), err
}

// clip keeps an error's text short.
func clip(b []byte) string {
	const most = 2048
	if len(b) > most {
		return string(b[:most]) + "…"
	}
	return string(b)
}
