package snp

import (
	"bytes"
	"crypto/subtle"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// ID is a value of a report that is compared as a whole. Its text is hexadecimal.
type ID interface {
	KeyDigest | ChipID | HostData | GuestID
	comparable
	String() string
	encoding.TextMarshaler
}

// KeyDigest is the SHA-384 of an ID key or an author key, as package measure/idblock makes it.
type KeyDigest [48]byte

// ChipID is the name of one processor. Turin's have 8 bytes, and zeros behind them.
type ChipID [64]byte

// HostData is what the host gave at launch (HOST_DATA).
type HostData [32]byte

// GuestID is a FAMILY_ID or an IMAGE_ID, from the ID block.
type GuestID [16]byte

func (d KeyDigest) String() string { return hex.EncodeToString(d[:]) }
func (d ChipID) String() string    { return hex.EncodeToString(d[:]) }
func (d HostData) String() string  { return hex.EncodeToString(d[:]) }
func (d GuestID) String() string   { return hex.EncodeToString(d[:]) }

// MarshalText gives lower-case hexadecimal digits.
func (d KeyDigest) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// MarshalText gives lower-case hexadecimal digits.
func (d ChipID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// MarshalText gives lower-case hexadecimal digits.
func (d HostData) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// MarshalText gives lower-case hexadecimal digits.
func (d GuestID) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, d[:]), nil }

// UnmarshalText takes hexadecimal digits of exactly the right number.
func (d *KeyDigest) UnmarshalText(s []byte) error { return readHex(d[:], s) }

// UnmarshalText takes hexadecimal digits of exactly the right number.
func (d *ChipID) UnmarshalText(s []byte) error { return readHex(d[:], s) }

// UnmarshalText takes hexadecimal digits of exactly the right number.
func (d *HostData) UnmarshalText(s []byte) error { return readHex(d[:], s) }

// UnmarshalText takes hexadecimal digits of exactly the right number.
func (d *GuestID) UnmarshalText(s []byte) error { return readHex(d[:], s) }

func readHex(to, s []byte) error {
	if len(s) == 2*len(to) {
		if _, err := hex.Decode(to, s); err == nil {
			return nil
		}
	}
	return fmt.Errorf("want %d hexadecimal digits", 2*len(to))
}

// Allowed is what a policy allows in one field: the listed values, or any when it says so. The zero Allowed allows none.
type Allowed[T ID] struct {
	Any  bool
	List []T
}

// AnyOf allows every value.
func AnyOf[T ID]() Allowed[T] { return Allowed[T]{Any: true} }

// Only allows the listed values.
func Only[T ID](list ...T) Allowed[T] { return Allowed[T]{List: list} }

// allows compares with every value, in constant time each.
func (a Allowed[T]) allows(v T) bool {
	found := 0
	for _, one := range a.List {
		found |= subtle.ConstantTimeCompare([]byte(one.String()), []byte(v.String()))
	}
	return a.Any || found == 1
}

// validate complains of a list that says nothing, two things, or the zeros that stand for "none" in a report.
func (a Allowed[T]) validate(name string) error {
	var none T
	seen := map[T]bool{}
	for _, v := range a.List {
		switch {
		case v == none:
			return fmt.Errorf("%w: %s: zeros are a report's word for none", ErrPolicy, name)
		case seen[v]:
			return fmt.Errorf("%w: %s: %v is there twice", ErrPolicy, name, v)
		}
		seen[v] = true
	}
	switch {
	case a.Any && len(a.List) > 0:
		return fmt.Errorf(`%w: %s: "any" and a list`, ErrPolicy, name)
	case !a.Any && len(a.List) == 0:
		return fmt.Errorf(`%w: %s: nothing is allowed: list values, or say "any"`, ErrPolicy, name)
	}
	return nil
}

// MarshalJSON gives "any" or the list.
func (a Allowed[T]) MarshalJSON() ([]byte, error) {
	switch {
	case a.Any && len(a.List) == 0:
		return []byte(`"any"`), nil
	case !a.Any && a.List != nil:
		return json.Marshal(a.List)
	case !a.Any:
		return []byte(`[]`), nil
	}
	return nil, errors.New(`"any" and a list`)
}

// UnmarshalJSON takes "any" or a list.
func (a *Allowed[T]) UnmarshalJSON(b []byte) error {
	*a = Allowed[T]{}
	if bytes.Equal(bytes.TrimSpace(b), []byte(`"any"`)) {
		a.Any = true
		return nil
	}
	var texts []string
	if err := json.Unmarshal(b, &texts); err != nil || texts == nil {
		return errors.New(`want "any" or a list of hexadecimal values`)
	}
	a.List = make([]T, len(texts))
	for i, s := range texts {
		to, ok := any(&a.List[i]).(encoding.TextUnmarshaler)
		if !ok {
			return errors.New("value has no text form")
		}
		if err := to.UnmarshalText([]byte(s)); err != nil {
			return err
		}
	}
	return nil
}
