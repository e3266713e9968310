package keyserver

import (
	"context"
	"crypto/hmac"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
)

// ErrPrincipals says that somebody without the store key changed the list of principals. Nobody is known then.
var ErrPrincipals = errors.New("list of principals was changed")

// Principals gives those whom the store knows. Each change is an entry of the audit, at the time that now says.
func (s *Store) Principals(now func() time.Time) access.Principals { return &principals{s, now} }

type principals struct {
	store *Store
	now   func() time.Time
}

// List gives all, by name.
func (p *principals) List(ctx context.Context) ([]access.Principal, error) {
	on, end, err := p.store.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("list principals: %w", err)
	}
	defer end()
	list, err := checkedPrincipals(ctx, on, p.store.key)
	if err != nil {
		return nil, fmt.Errorf("list principals: %w", err)
	}
	return list, nil
}

// Add takes a new one.
func (p *principals) Add(ctx context.Context, a access.Principal) error {
	a.Created, a.Expires = a.Created.UTC().Truncate(time.Second), a.Expires.UTC().Truncate(time.Second)
	if err := a.Validate(); err != nil {
		return err
	}
	err := p.store.write(ctx, func(t *transaction) error {
		list, err := checkedPrincipals(t.ctx, t.on, t.store.key)
		if err != nil {
			return err
		}
		for _, other := range list { // a failed insert would end the write on some databases
			if other.Name == a.Name || other.Kind == a.Kind && other.Digest.Equal(a.Digest) {
				return access.ErrThere
			}
		}
		_, err = t.exec(`INSERT INTO principals (name, kind, digest, roles, created, expires) VALUES (?, ?, ?, ?, ?, ?)`,
			a.Name, string(a.Kind), a.Digest.String(), a.Roles.String(), a.Created.Unix(), a.Expires.Unix())
		if err != nil {
			return err
		}
		return t.principalsChanged(Entry{Time: p.now(), Event: EventAddPrincipal, Target: a.Name, Reason: fmt.Sprintf("%s %.16v, roles %s, until %s",
			a.Kind, a.Digest, a.Roles, a.Expires.Format(time.RFC3339))}.by(ctx))
	})
	if err != nil {
		return fmt.Errorf("add principal %s: %w", a.Name, err)
	}
	return nil
}

// Remove takes one away.
func (p *principals) Remove(ctx context.Context, name string) error {
	err := p.store.write(ctx, func(t *transaction) error {
		if _, err := checkedPrincipals(t.ctx, t.on, t.store.key); err != nil { // a list that somebody else changed gets no new MAC
			return err
		}
		n, err := t.exec(`DELETE FROM principals WHERE name = ?`, name)
		if err != nil {
			return err
		}
		if n != 1 {
			return access.ErrNoPrincipal
		}
		return t.principalsChanged(Entry{Time: p.now(), Event: EventRemovePrincipal, Target: name}.by(ctx))
	})
	if err != nil {
		return fmt.Errorf("remove principal %.64q: %w", name, err)
	}
	return nil
}

// Lookup finds the one with a credential.
func (p *principals) Lookup(ctx context.Context, kind access.Kind, digest access.Digest) (access.Principal, error) {
	known, err := p.store.principals(ctx)
	if err != nil {
		return access.Principal{}, fmt.Errorf("look up principal: %w", err)
	}
	found, ok := known[credential{kind, digest}]
	if !ok {
		return access.Principal{}, access.ErrNoPrincipal
	}
	return found, nil
}

type credential struct {
	kind   access.Kind
	digest access.Digest
}

// principalCache keeps the list of one generation, which each change ends for every server on the store.
type principalCache struct {
	mu         sync.Mutex
	generation int64
	known      map[credential]access.Principal // nil: not loaded
}

func (s *Store) principals(ctx context.Context) (map[credential]access.Principal, error) {
	c := &s.known
	c.mu.Lock()
	defer c.mu.Unlock()
	var now int64
	if err := s.read.row(ctx, `SELECT n FROM generation`).Scan(&now); err != nil {
		return nil, err
	}
	if c.known != nil && c.generation == now {
		return c.known, nil
	}
	on, end, err := s.snapshot(ctx)
	if err != nil {
		return nil, err
	}
	defer end()
	if err := on.row(ctx, `SELECT n FROM generation`).Scan(&now); err != nil { // of the same moment as the list
		return nil, err
	}
	list, err := checkedPrincipals(ctx, on, s.key)
	if err != nil {
		return nil, err
	}
	c.generation, c.known = now, make(map[credential]access.Principal, len(list))
	for _, p := range list {
		c.known[credential{p.Kind, p.Digest}] = p
	}
	return c.known, nil
}

// principalsMAC names the setting with the MAC over all principals.
const principalsMAC = "principals-mac"

func (k *Key) principalsMAC(list []access.Principal) []byte {
	parts := [][]byte{[]byte("principals")}
	for _, p := range list {
		parts = append(parts, []byte(p.Name), []byte(p.Kind), p.Digest[:], []byte(p.Roles.String()), number(p.Created.Unix()), number(p.Expires.Unix()))
	}
	return k.mac(parts...)
}

// principalsChanged ends every change of the list.
func (t *transaction) principalsChanged(entry Entry) error {
	list, err := listPrincipals(t.ctx, t.on)
	if err != nil {
		return err
	}
	_, err = t.exec(`INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`,
		principalsMAC, t.store.key.principalsMAC(list))
	if err != nil {
		return err
	}
	if err := t.changed(); err != nil {
		return err
	}
	return t.audit(entry)
}

func listPrincipals(ctx context.Context, on queries) ([]access.Principal, error) {
	rows, err := on.rows(ctx, `SELECT name, kind, digest, roles, created, expires FROM principals`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []access.Principal{}
	for rows.Next() {
		var p access.Principal
		var digest, roles string
		var created, expires int64
		if err := rows.Scan(&p.Name, &p.Kind, &digest, &roles, &created, &expires); err != nil {
			return nil, err
		}
		p.Created, p.Expires = time.Unix(created, 0).UTC(), time.Unix(expires, 0).UTC()
		var ofDigest, ofRoles error
		p.Digest, ofDigest = access.ParseDigest(digest)
		p.Roles, ofRoles = access.ParseRoles(roles)
		if ofDigest != nil || ofRoles != nil || p.Validate() != nil { // none such was ever written
			return nil, ErrPrincipals
		}
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b access.Principal) int { return strings.Compare(a.Name, b.Name) })
	return list, rows.Err()
}

// checkedPrincipals gives the list if its MAC holds. Without a MAC there was never one.
func checkedPrincipals(ctx context.Context, on queries, key *Key) ([]access.Principal, error) {
	list, err := listPrincipals(ctx, on)
	if err != nil {
		return nil, err
	}
	var mac []byte
	err = on.row(ctx, `SELECT value FROM settings WHERE name = ?`, principalsMAC).Scan(&mac)
	if errors.Is(err, sql.ErrNoRows) && len(list) == 0 {
		return list, nil
	}
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if !hmac.Equal(mac, key.principalsMAC(list)) {
		return nil, ErrPrincipals
	}
	return list, nil
}
