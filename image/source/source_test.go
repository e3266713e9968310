package source

import (
	"errors"
	"testing"
)

func TestCleanPath(t *testing.T) {
	good := map[string]string{"": "/", ".": "/", "./": "/", "/": "/", "./boot//x/": "/boot/x", "/boot/./x": "/boot/x", "a..b": "/a..b"}
	for in, want := range good {
		if got, err := cleanPath(in); err != nil || got != want {
			t.Errorf("cleanPath(%q) = %q, %v: want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"..", "../x", "/..", "a/../b", "a/..", "x\x00y"} {
		if got, err := cleanPath(in); !errors.Is(err, ErrPath) || got != "" {
			t.Errorf("cleanPath(%q) = %q, %v: want ErrPath", in, got, err)
		}
	}
}
