package keyserver

import (
	"cmp"
	"context"
	"crypto/hmac"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
)

// RevocationKind is what a revocation takes out of use.
type RevocationKind string

// The kinds, with what their values look like.
const (
	RevokedImage  RevocationKind = "image"  // its name
	RevokedDigest RevocationKind = "digest" // a launch digest in lower-case hexadecimal, whatever image has it
	RevokedChip   RevocationKind = "chip"   // a chip (see Attempt), or a platform as the audit names it
	RevokedSecret RevocationKind = "secret" // image, '/', GUID
)

// Revocation takes something out of use, for open sessions too.
type Revocation struct {
	Kind   RevocationKind `json:"kind"`
	Value  string         `json:"value"`
	Reason string         `json:"reason"`
	Time   time.Time      `json:"time"`
}

// Errors of revocations.
var (
	ErrRevocation   = errors.New("not a revocation")
	ErrNotRevoked   = errors.New("is not revoked")
	ErrStaysRevoked = errors.New("image's secrets are gone: register it again")
	// ErrRevocations says that somebody without the store key changed the list. Nothing is released then.
	ErrRevocations = errors.New("list of revocations was changed")
)

// Revocations finds revocations.
type Revocations struct{ list map[revocationKey]Revocation }

type revocationKey struct {
	kind  RevocationKind
	value string
}

// RevocationsOf makes them of a list.
func RevocationsOf(list []Revocation) Revocations {
	r := Revocations{make(map[revocationKey]Revocation, len(list))}
	for _, one := range list {
		r.list[revocationKey{one.Kind, one.Value}] = one
	}
	return r
}

func (r Revocations) find(kind RevocationKind, value string) (reason string, is bool) {
	one, is := r.list[revocationKey{kind, value}]
	return one.Reason, is
}

const maxReason = 256

// Validate says whether it can be taken.
func (r Revocation) Validate() error {
	ok := false
	switch r.Kind {
	case RevokedImage:
		ok = wire.ValidImage(r.Value)
	case RevokedDigest:
		b, err := hex.DecodeString(r.Value)
		ok = err == nil && hex.EncodeToString(b) == r.Value && (len(b) == measure.SEV.DigestSize() || len(b) == measure.SNP.DigestSize())
	case RevokedChip:
		ok = validChip(r.Value) || platformName.MatchString(r.Value)
	case RevokedSecret:
		_, _, ok = r.secret()
	}
	switch {
	case !ok:
		return fmt.Errorf("%w: no %s is named %q", ErrRevocation, clean(string(r.Kind)), clean(r.Value))
	case r.Reason == "" || len(r.Reason) > maxReason || strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c > '~' }):
		return fmt.Errorf("%w: say why, in 1 to %d ASCII letters", ErrRevocation, maxReason)
	}
	return nil
}

// platformName is how the audit names a platform: product and a part of the PDH's digest.
var platformName = regexp.MustCompile(`^[!-~]{1,64}/[0-9a-f]{16}$`)

// secret takes a secret's value apart.
func (r Revocation) secret() (image string, id guid.GUID, ok bool) {
	image, text, _ := strings.Cut(r.Value, "/")
	id, err := guid.Parse(text)
	return image, id, err == nil && id.String() == text && wire.ValidImage(image)
}

func secretName(image string, id guid.GUID) string { return image + "/" + id.String() }

// Revoke takes something out of use. An image's and a secret's values leave the store for good.
func (s *Store) Revoke(ctx context.Context, r Revocation) error {
	if err := r.Validate(); err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	err := s.write(ctx, func(t *transaction) error {
		if _, err := t.revocations(); err != nil {
			return err
		}
		entry := Entry{Time: r.Time, Event: EventRevoke, Reason: r.Reason}.by(ctx)
		switch r.Kind {
		case RevokedImage:
			m, err := t.image(r.Value)
			if err != nil {
				return err
			}
			entry.Image, entry.Version, entry.PolicyVersion = m.name, m.version, m.policyVersion
			if _, err := t.exec(`DELETE FROM secrets WHERE image = ?`, m.name); err != nil {
				return err
			}
		case RevokedDigest, RevokedChip:
			entry.Target = r.Value
		case RevokedSecret:
			image, id, _ := r.secret()
			var err error
			if entry, err = t.wipeSecret(image, id, entry); err != nil {
				return err
			}
		}
		n, err := t.exec(`INSERT INTO revocations (kind, value, reason, made) VALUES (?, ?, ?, ?) ON CONFLICT (kind, value) DO NOTHING`,
			string(r.Kind), r.Value, r.Reason, r.Time.Unix())
		if err != nil {
			return err
		}
		if n != 1 {
			return fmt.Errorf("%s %s is already %w", r.Kind, r.Value, ErrRevoked)
		}
		return t.revocationsChanged(entry)
	})
	if err != nil {
		return fmt.Errorf("revoke: %w", err)
	}
	return nil
}

// Unrevoke takes a revocation back. A revoked secret's value stays gone: PutSecret may give another. An image's stays
// revoked until it is registered again.
func (s *Store) Unrevoke(ctx context.Context, kind RevocationKind, value string, now time.Time) error {
	if kind == RevokedImage {
		return fmt.Errorf("unrevoke: %w", ErrStaysRevoked)
	}
	err := s.write(ctx, func(t *transaction) error { return t.unrevoke(ctx, kind, value, now) })
	if err != nil {
		return fmt.Errorf("unrevoke: %w", err)
	}
	return nil
}

func (t *transaction) unrevoke(ctx context.Context, kind RevocationKind, value string, now time.Time) error {
	if _, err := t.revocations(); err != nil {
		return err
	}
	n, err := t.exec(`DELETE FROM revocations WHERE kind = ? AND value = ?`, string(kind), value)
	if err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("%s %s %w", clean(string(kind)), clean(value), ErrNotRevoked)
	}
	entry := Entry{Time: now, Event: EventUnrevoke}.by(ctx)
	switch kind {
	case RevokedImage:
		entry.Image = value
	case RevokedDigest, RevokedChip:
		entry.Target = value
	case RevokedSecret:
		image, id, _ := Revocation{Value: value}.secret()
		entry.Image, entry.Target = image, id.String()
	}
	return t.revocationsChanged(entry)
}

// revocations gives the list, before a change too: a list that somebody else changed gets no new MAC.
func (t *transaction) revocations() (Revocations, error) {
	list, err := checkedRevocations(t.ctx, t.on, t.store.key)
	return RevocationsOf(list), err
}

// revocationsChanged ends every change of the list.
func (t *transaction) revocationsChanged(entry Entry) error {
	if err := signRevocations(t.ctx, t.on, t.store.key); err != nil {
		return err
	}
	if err := t.changed(); err != nil {
		return err
	}
	return t.audit(entry)
}

// revocationsMAC names the setting with the MAC over all revocations.
const revocationsMAC = "revocations-mac"

func (k *Key) revocationsMAC(list []Revocation) []byte {
	parts := [][]byte{[]byte("revocations")}
	for _, r := range list {
		parts = append(parts, []byte(r.Kind), []byte(r.Value), []byte(r.Reason), number(r.Time.Unix()))
	}
	return k.mac(parts...)
}

func signRevocations(ctx context.Context, on queries, key *Key) error {
	list, err := listRevocations(ctx, on)
	if err != nil {
		return err
	}
	_, err = on.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`,
		revocationsMAC, key.revocationsMAC(list))
	return err
}

func listRevocations(ctx context.Context, on queries) ([]Revocation, error) {
	rows, err := on.rows(ctx, `SELECT kind, value, reason, made FROM revocations ORDER BY kind, value`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []Revocation{}
	for rows.Next() {
		var r Revocation
		var made int64
		if err := rows.Scan(&r.Kind, &r.Value, &r.Reason, &made); err != nil {
			return nil, err
		}
		r.Time = time.Unix(made, 0).UTC()
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b Revocation) int { // databases differ in how they order text
		return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Value, b.Value))
	})
	return list, rows.Err()
}

// checkedRevocations gives the list if its MAC holds. A store without a MAC has had neither image nor revocation.
func checkedRevocations(ctx context.Context, on queries, key *Key) ([]Revocation, error) {
	list, err := listRevocations(ctx, on)
	if err != nil {
		return nil, err
	}
	var mac []byte
	err = on.row(ctx, `SELECT value FROM settings WHERE name = ?`, revocationsMAC).Scan(&mac)
	if errors.Is(err, sql.ErrNoRows) {
		var images int64
		if err := on.row(ctx, `SELECT count(*) FROM images`).Scan(&images); err != nil {
			return nil, err
		}
		if images > 0 || len(list) > 0 {
			return nil, ErrRevocations
		}
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(mac, key.revocationsMAC(list)) {
		return nil, ErrRevocations
	}
	return list, nil
}

// Revocations lists what is revoked, by kind and value.
func (s *Store) Revocations(ctx context.Context) ([]Revocation, error) {
	on, end, err := s.snapshot(ctx)
	if err != nil {
		return nil, fmt.Errorf("list revocations: %w", err)
	}
	defer end()
	list, err := checkedRevocations(ctx, on, s.key)
	if err != nil {
		return nil, fmt.Errorf("list revocations: %w", err)
	}
	return list, nil
}

// revocationCache keeps the list of one generation.
type revocationCache struct {
	mu         sync.Mutex
	loaded     bool
	generation int64
	list       Revocations
}

// revocations gives the list as it is now, and the generation that it is of: the given one, if the list of that is known.
func (s *Store) revocations(ctx context.Context, generation int64) (Revocations, int64, error) {
	c := &s.revoked
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded && c.generation == generation {
		return c.list, generation, nil
	}
	on, end, err := s.snapshot(ctx)
	if err != nil {
		return Revocations{}, 0, err
	}
	defer end()
	var now int64
	if err := on.row(ctx, `SELECT n FROM generation`).Scan(&now); err != nil {
		return Revocations{}, 0, err
	}
	list, err := checkedRevocations(ctx, on, s.key)
	if err != nil {
		return Revocations{}, 0, err
	}
	c.loaded, c.generation, c.list = true, now, RevocationsOf(list)
	return c.list, now, nil
}

// changed begins a new generation: what was judged before is judged again.
func (t *transaction) changed() error {
	_, err := t.exec(`UPDATE generation SET n = n + 1`)
	return err
}
