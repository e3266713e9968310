// Package accesstest holds every implementation of access.Principals to what the interface says.
package accesstest

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
)

// begin is a time of whole seconds.
var begin = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

// principal gives a valid one; each n has its own name and credential.
func principal(n int) access.Principal {
	return access.Principal{Name: fmt.Sprintf("p%03d", n), Kind: access.Token, Digest: access.Digest{1, byte(n), byte(n >> 8)},
		Roles: access.Register | access.Audit, Created: begin, Expires: begin.Add(time.Hour)}
}

func same(a, b access.Principal) bool {
	equal := a.Created.Equal(b.Created) && a.Expires.Equal(b.Expires)
	a.Created, a.Expires, b.Created, b.Expires = time.Time{}, time.Time{}, time.Time{}, time.Time{}
	return equal && reflect.DeepEqual(a, b)
}

// Principals tests one that is empty at first; empty is called once for each test.
func Principals(t *testing.T, empty func(t *testing.T) access.Principals) {
	t.Run("add and find", func(t *testing.T) { addAndFind(t, empty(t)) })
	t.Run("remove", func(t *testing.T) { remove(t, empty(t)) })
	t.Run("refuses", func(t *testing.T) { refuses(t, empty(t)) })
	t.Run("at once", func(t *testing.T) { atOnce(t, empty(t)) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func names(t *testing.T, s access.Principals) string {
	t.Helper()
	all, err := s.List(t.Context())
	must(t, err)
	var names []string
	for _, p := range all {
		names = append(names, p.Name)
	}
	return fmt.Sprint(names)
}

func addAndFind(t *testing.T, s access.Principals) {
	if got := names(t, s); got != "[]" {
		t.Fatalf("a new store has %s", got)
	}
	for _, n := range []int{2, 1, 300} {
		must(t, s.Add(t.Context(), principal(n)))
	}
	if got := names(t, s); got != "[p001 p002 p300]" {
		t.Errorf("list %s", got)
	}
	p, err := s.Lookup(t.Context(), access.Token, principal(2).Digest)
	if err != nil || !same(p, principal(2)) {
		t.Errorf("found %+v, %v", p, err)
	}
	certificate := principal(2) // the same digest of another kind is another credential
	certificate.Name, certificate.Kind, certificate.Roles = "cert", access.Certificate, access.Admin
	must(t, s.Add(t.Context(), certificate))
	p, err = s.Lookup(t.Context(), access.Certificate, certificate.Digest)
	if err != nil || !same(p, certificate) {
		t.Errorf("found %+v, %v", p, err)
	}
	all, err := s.List(t.Context())
	if err != nil || len(all) != 4 || !same(all[0], certificate) || !same(all[2], principal(2)) {
		t.Errorf("list %+v, %v", all, err)
	}
}

func remove(t *testing.T, s access.Principals) {
	must(t, s.Add(t.Context(), principal(1)))
	must(t, s.Add(t.Context(), principal(2)))
	must(t, s.Remove(t.Context(), "p001"))
	if p, err := s.Lookup(t.Context(), access.Token, principal(1).Digest); !errors.Is(err, access.ErrNoPrincipal) || !same(p, access.Principal{}) {
		t.Errorf("after its end: %+v, %v", p, err)
	}
	if _, err := s.Lookup(t.Context(), access.Token, principal(2).Digest); err != nil {
		t.Errorf("another went with it: %v", err)
	}
	if err := s.Remove(t.Context(), "p001"); !errors.Is(err, access.ErrNoPrincipal) {
		t.Errorf("removed twice: %v", err)
	}
	must(t, s.Add(t.Context(), principal(1)))
}

func refuses(t *testing.T, s access.Principals) {
	must(t, s.Add(t.Context(), principal(1)))
	for about, c := range map[string]struct {
		spoil func(*access.Principal)
		want  error
	}{
		"name there":       {func(p *access.Principal) { p.Name = "p001" }, access.ErrThere},
		"credential there": {func(p *access.Principal) { p.Digest = principal(1).Digest }, access.ErrThere},
		"no name":          {func(p *access.Principal) { p.Name = "" }, access.ErrPrincipal},
		"no roles":         {func(p *access.Principal) { p.Roles = 0 }, access.ErrPrincipal},
		"no end":           {func(p *access.Principal) { p.Expires = time.Time{} }, access.ErrPrincipal},
	} {
		p := principal(2)
		c.spoil(&p)
		if err := s.Add(t.Context(), p); !errors.Is(err, c.want) {
			t.Errorf("%s: %v", about, err)
		}
	}
	if got := names(t, s); got != "[p001]" {
		t.Errorf("what was refused is there: %s", got)
	}
	must(t, s.Add(t.Context(), principal(2)))
	for _, digest := range []access.Digest{{}, principal(3).Digest} {
		if _, err := s.Lookup(t.Context(), access.Token, digest); !errors.Is(err, access.ErrNoPrincipal) {
			t.Errorf("digest %s: %v", digest, err)
		}
	}
	if _, err := s.Lookup(t.Context(), access.Certificate, principal(1).Digest); !errors.Is(err, access.ErrNoPrincipal) {
		t.Errorf("a token's digest as a certificate's: %v", err)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, _ = s.Lookup(over, access.Token, principal(1).Digest) // may fail, must not hang
}

// atOnce adds one name from many sides: one gets it.
func atOnce(t *testing.T, s access.Principals) {
	var work sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs {
		work.Go(func() {
			p := principal(i)
			p.Name = "same"
			errs[i] = s.Add(t.Context(), p)
		})
	}
	work.Wait()
	added := 0
	for _, err := range errs {
		if err == nil {
			added++
		} else if !errors.Is(err, access.ErrThere) {
			t.Error(err)
		}
	}
	if got := names(t, s); added != 1 || got != "[same]" {
		t.Errorf("%d were added: %s", added, got)
	}
}
