package keyserver

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/access/accesstest"
)

func TestPrincipals(t *testing.T) {
	accesstest.Principals(t, func(t *testing.T) access.Principals {
		l := newLab(t)
		return l.store.Principals(l.clock)
	})
}

// TestPrincipalsOfOtherServers has two stores on one location, as two servers have them: each sees at once what the other changes.
func TestPrincipalsOfOtherServers(t *testing.T) {
	l := newLab(t)
	other, err := OpenStore(t.Context(), l.dir, l.key, rand.Reader, l.clock())
	must(t, err)
	defer other.Close()
	here, there := l.store.Principals(l.clock), other.Principals(l.clock)
	p, text, err := access.NewTokenPrincipal("ann", access.Register|access.Audit, time.Hour, rand.Reader, l.clock())
	must(t, err)
	clear(text)
	find := func(s access.Principals) error {
		_, err := s.Lookup(t.Context(), p.Kind, p.Digest)
		return err
	}
	for range 2 {
		if err := find(there); !errors.Is(err, access.ErrNoPrincipal) {
			t.Fatalf("not added yet: %v", err)
		}
		must(t, here.Add(WithActor(t.Context(), Actor{Name: "boss"}), p))
		must(t, find(there))
		must(t, find(here))
		must(t, here.Remove(t.Context(), "ann"))
	}
	rows := l.rows()
	added, removed := rows[len(rows)-2], rows[len(rows)-1]
	if added.Event != EventAddPrincipal || added.Target != "ann" || added.Principal != "boss" || !strings.Contains(added.Reason, "token "+p.Digest.String()[:16]+", roles register,audit, until ") ||
		strings.Contains(added.Reason, p.Digest.String()) || removed.Event != EventRemovePrincipal || removed.Target != "ann" {
		t.Errorf("audit says %+v, %+v", added, removed)
	}
}

// TestChangedPrincipals changes the list as somebody can who writes the database and has no key.
func TestChangedPrincipals(t *testing.T) {
	for about, statements := range map[string][]string{
		"more roles":    {`UPDATE principals SET roles = 'admin' WHERE name = 'ann'`},
		"longer life":   {`UPDATE principals SET expires = expires + 1`},
		"another's key": {`UPDATE principals SET digest = '` + strings.Repeat("5e", 32) + `'`},
		"renamed":       {`UPDATE principals SET name = 'bob'`},
		"dropped":       {`DELETE FROM principals`},
		"no MAC":        {`DELETE FROM settings WHERE name = 'principals-mac'`},
		"no digest":     {`UPDATE principals SET digest = 'x'`},
		"no roles":      {`UPDATE principals SET roles = ''`},
		"never ends":    {`UPDATE principals SET expires = expires + 1000000000000`},
	} {
		t.Run(about, func(t *testing.T) {
			l := newLab(t)
			l.register("web")
			known := l.store.Principals(l.clock)
			ann, _, err := access.NewTokenPrincipal("ann", access.Audit, time.Hour, rand.Reader, l.clock())
			must(t, err)
			must(t, known.Add(t.Context(), ann))
			for _, s := range append(statements, `UPDATE generation SET n = n + 1`) {
				_, err := l.store.read.exec(t.Context(), s)
				must(t, err)
			}
			if _, err := known.List(t.Context()); !errors.Is(err, ErrPrincipals) {
				t.Errorf("list: %v", err)
			}
			if _, err := known.Lookup(context.Background(), access.Token, ann.Digest); !errors.Is(err, ErrPrincipals) {
				t.Errorf("look-up: %v", err)
			}
			bob, _, err := access.NewTokenPrincipal("carl", access.Audit, time.Hour, rand.Reader, l.clock())
			must(t, err)
			if err := known.Add(t.Context(), bob); !errors.Is(err, ErrPrincipals) {
				t.Errorf("add: %v", err)
			}
			if err := known.Remove(t.Context(), "ann"); !errors.Is(err, ErrPrincipals) {
				t.Errorf("remove: %v", err)
			}
		})
	}
}
