package receipt

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

const good = `{"session":"000102030405060708090a0b0c0d0e0f","key":"EBESExQVFhcYGRobHB0eHyAhIiMkJSYnKCkqKywtLi8=","used":"current"}` + "\n"

func entry() []byte {
	b := make([]byte, 48)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

func TestGood(t *testing.T) {
	r, err := New(entry(), []byte(Current))
	if err != nil {
		t.Fatal(err)
	}
	text, err := r.Encode()
	if err != nil || string(text) != good {
		t.Errorf("%s, %v, want %s", text, err, good)
	}
	again, err := Parse(text)
	if err != nil || *again != *r {
		t.Errorf("%+v, %v, want %+v", again, err, r)
	}
	r.Wipe()
	if r.Key != [32]byte{} {
		t.Error("the key is still there")
	}
}

// TestRefused spoils one thing of the good receipt at a time.
func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, entry, used string }{
		{"empty", "", Current},
		{"too short", string(entry()[:47]), Current},
		{"too long", string(entry()) + "x", Current},
		{"no word", string(entry()), ""},
		{"another word", string(entry()), "current\n"},
	} {
		if r, err := New([]byte(c.entry), []byte(c.used)); r != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v", c.name, r, err)
		}
	}
	for _, c := range []struct{ name, from, to string }{
		{"no line's end", "\n", ""},
		{"something behind", "\n", "\n\n"},
		{"space", ":", ": "},
		{"not JSON", "{", ""},
		{"session of 15 bytes", "0001", "01"},
		{"session with the key's first byte", `0f","key":"EBES`, `0f10","key":"ERIT`},
		{"session in capitals", "0a", "0A"},
		{"session not hexadecimal", "0a", "0g"},
		{"key too short", "EBES", ""},
		{"key not base64", "EBES", "EBE*"},
		{"key without its padding", "=", ""},
		{"other bits in the key's last digit", "Li8=", "Li9="},
		{"another word", "current", "both"},
		{"no word", `,"used":"current"`, ""},
		{"name in capitals", "used", "Used"},
		{"a field twice", "{", `{"used":"previous",`},
		{"a field more", "{", `{"more":1,`},
	} {
		text := strings.Replace(good, c.from, c.to, 1)
		if text == good {
			t.Fatalf("%s: nothing was spoilt", c.name)
		}
		if r, err := Parse([]byte(text)); r != nil || !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v, %v", c.name, r, err)
		} else if strings.Contains(err.Error(), "EBES") {
			t.Errorf("%s: the error shows the key: %v", c.name, err)
		}
	}
}

// FuzzParse: what is taken is written again as it was.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(strings.Replace(good, Current, Previous, 1)))
	f.Add([]byte("{}"))
	if _, err := Parse([]byte(good)); err != nil {
		f.Fatalf("the first seed: %v", err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := Parse(text)
		if (r == nil) != (err != nil) {
			t.Fatalf("%v beside %v", r, err)
		}
		if r == nil {
			return
		}
		if again, err := r.Encode(); err != nil || !bytes.Equal(again, text) {
			t.Errorf("%q became %q, %v", text, again, err)
		}
	})
}
