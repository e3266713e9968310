package keyserver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// image is a registered image as the store has it.
type image struct {
	name             string
	version          int64
	policyVersion    int64
	registered       time.Time
	recordB, policyB []byte // as stored, and as bound into the image's secrets
	sealed           []byte // vault; nil: revoked
	record           *measure.Record
	policy           Policy
}

// ErrNoImage says that no image of that name is registered.
var ErrNoImage = errors.New("no image of that name")

// purpose binds the secrets to the image's version and to what is asked for: who changes the record or the policy in
// the store gets no secret opened.
func (m *image) purpose() [][]byte {
	return [][]byte{[]byte("secrets"), []byte(m.name), number(m.version), number(m.policyVersion), m.recordB, m.policyB}
}

// vault opens the image's secrets. The caller wipes them.
func (k *Key) vault(m *image) (*vault, error) {
	plain, err := k.open(m.sealed, m.purpose()...)
	if err != nil {
		return nil, err
	}
	v, err := parseVault(plain)
	if err != nil {
		clear(plain)
	}
	return v, err
}

// sealVault seals the secrets for the image as it now is.
func (k *Key) sealVault(m *image, v *vault, random io.Reader) (err error) {
	plain := v.encode()
	defer clear(plain)
	m.sealed, err = k.seal(random, plain, m.purpose()...)
	return err
}

func (m *image) parse() (err error) {
	if m.record, err = measure.ReadRecord(bytes.NewReader(m.recordB)); err != nil {
		return fmt.Errorf("image %s: %w", m.name, err)
	}
	if m.policy, err = DecodePolicy(m.policyB); err != nil {
		return fmt.Errorf("image %s: %w", m.name, err)
	}
	return nil
}

// digests gives the record's digests of a mode, each once.
func digests(record *measure.Record, mode measure.Mode) []sev.Digest {
	var list []sev.Digest
	for _, d := range record.Digests {
		if d.Mode == mode && len(d.Digest) == len(sev.Digest{}) {
			list = append(list, sev.Digest(d.Digest))
		}
	}
	return list
}

// imageCache keeps what was parsed, for as long as the store has the same bytes.
type imageCache struct {
	mu    sync.Mutex
	known map[string]*image
}

// maxParsed bounds the images that are kept parsed.
const maxParsed = 1024

// parse is m.parse, or what it gave before for the same bytes.
func (c *imageCache) parse(m *image) error {
	c.mu.Lock()
	old := c.known[m.name]
	c.mu.Unlock()
	if old != nil && bytes.Equal(old.recordB, m.recordB) && bytes.Equal(old.policyB, m.policyB) {
		m.record, m.policy = old.record, old.policy
		return nil
	}
	if err := m.parse(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known == nil || len(c.known) >= maxParsed {
		c.known = make(map[string]*image)
	}
	c.known[m.name] = &image{recordB: m.recordB, policyB: m.policyB, record: m.record, policy: m.policy}
	return nil
}

const (
	imageColumns = `i.name, i.version, i.policy_version, i.record, i.policy, i.registered, s.sealed`
	imageTables  = `images i LEFT JOIN secrets s ON s.image = i.name`
)

// scanImage reads imageColumns, and what stands behind them. An outer join's missing image is ErrNoImage.
func (s *Store) scanImage(scan func(...any) error, more ...any) (*image, error) {
	var name sql.NullString
	var version, policyVersion, registered sql.NullInt64
	m := new(image)
	err := scan(append([]any{&name, &version, &policyVersion, &m.recordB, &m.policyB, &registered, &m.sealed}, more...)...)
	if errors.Is(err, sql.ErrNoRows) || err == nil && !name.Valid {
		return nil, ErrNoImage
	}
	if err != nil {
		return nil, err
	}
	m.name, m.version, m.policyVersion, m.registered = name.String, version.Int64, policyVersion.Int64, time.Unix(registered.Int64, 0).UTC()
	return m, s.parsed.parse(m)
}

func (t *transaction) image(name string) (*image, error) {
	m, err := t.store.scanImage(t.row(`SELECT `+imageColumns+` FROM `+imageTables+` WHERE i.name = ?`, name).Scan)
	if errors.Is(err, ErrNoImage) {
		err = fmt.Errorf("%w: %s", ErrNoImage, clean(name))
	}
	return m, err
}

// writeImage writes the image with its secrets, sealed for what it now is.
func (t *transaction) writeImage(m *image, v *vault) error {
	if err := t.store.key.sealVault(m, v, t.store.random); err != nil {
		return err
	}
	_, err := t.exec(`INSERT INTO images (name, version, policy_version, record, policy, registered) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version, policy_version = excluded.policy_version,
		record = excluded.record, policy = excluded.policy, registered = excluded.registered`,
		m.name, m.version, m.policyVersion, m.recordB, m.policyB, m.registered.Unix())
	if err != nil {
		return err
	}
	return t.writeSecrets(m)
}

func (t *transaction) writeSecrets(m *image) error {
	_, err := t.exec(`INSERT INTO secrets (image, sealed) VALUES (?, ?) ON CONFLICT (image) DO UPDATE SET sealed = excluded.sealed`, m.name, m.sealed)
	if err != nil {
		return err
	}
	return t.changed()
}

// found is an image, if there is one, with what decides about it, all of one generation.
type found struct {
	generation int64
	image      *image // nil: none of that name
	released   int64
	revoked    Revocations
	broken     error // somebody without the store key changed what decides: nothing is released
}

// maxTries bounds how often something is looked at anew because it changed meanwhile.
const maxTries = 16

// find looks an image up. It waits for no write.
func (s *Store) find(ctx context.Context, name string) (*found, error) {
	for range maxTries {
		f := new(found)
		var n sql.NullInt64
		var mac []byte
		row := s.read.row(ctx, `SELECT `+imageColumns+`, g.n, r.n, r.mac FROM generation g LEFT JOIN images i ON i.name = ?
			LEFT JOIN secrets s ON s.image = i.name LEFT JOIN releases r ON r.image = i.name`, name)
		m, err := s.scanImage(row.Scan, &f.generation, &n, &mac)
		switch {
		case errors.Is(err, ErrNoImage):
		case err != nil:
			return nil, err
		default:
			f.image, f.released = m, n.Int64
			if !s.key.counts(m, n.Int64, mac) {
				f.broken = errCount
			}
		}
		revoked, generation, err := s.revocations(ctx, f.generation)
		if errors.Is(err, ErrRevocations) {
			f.broken = err
			return f, nil
		}
		if err != nil {
			return nil, err
		}
		if generation == f.generation {
			f.revoked = revoked
			return f, nil
		}
	}
	return nil, ErrBusy
}

// open opens the image's secrets, which shows that record and policy are those that its owner gave, and says what Judge takes. The
// caller wipes the secrets; where they do not open, nothing may be released.
func (f *found) open(key *Key) (Standing, *vault, error) {
	about := Standing{Image: f.image.name, Record: f.image.record, Policy: f.image.policy, Released: f.released, Revoked: f.revoked}
	if f.broken != nil {
		return about, nil, f.broken
	}
	if reason, is := f.revoked.find(RevokedImage, f.image.name); is { // it has none any more
		return about, nil, fmt.Errorf("image is %w: %s", ErrRevoked, reason)
	}
	secrets, err := key.vault(f.image)
	if err != nil {
		return about, nil, fmt.Errorf("open image's secrets: %w", err)
	}
	passphrase := secrets.find(sev.DiskPassphrase)
	about.Passphrase = passphrase != nil && passphrase.current.data != nil
	return about, secrets, nil
}

// errCount says that somebody without the store key changed a number of releases.
var errCount = errors.New("number of releases was changed")

func (k *Key) countMAC(m *image, n int64) []byte {
	return k.mac([]byte("releases"), []byte(m.name), number(m.version), number(n))
}

func (k *Key) counts(m *image, n int64, mac []byte) bool { return hmac.Equal(mac, k.countMAC(m, n)) }

// setReleases sets the number of releases that the image's version has had.
func (t *transaction) setReleases(m *image, n int64) error {
	_, err := t.exec(`INSERT INTO releases (image, n, mac) VALUES (?, ?, ?) ON CONFLICT (image) DO UPDATE SET n = excluded.n, mac = excluded.mac`,
		m.name, n, t.store.key.countMAC(m, n))
	return err
}

// errStale says that what a decision rests on has changed: it has to be made again.
var errStale = errors.New("judged on what is no longer so")

// countRelease counts a release that was decided on what was found. It is the last word on whether that still holds.
func (t *transaction) countRelease(f *found) error {
	var generation, n int64
	var mac []byte
	err := t.row(`SELECT g.n, r.n, r.mac FROM generation g CROSS JOIN releases r WHERE r.image = ?`, f.image.name).Scan(&generation, &n, &mac)
	switch {
	case err != nil:
		return err
	case generation != f.generation:
		return errStale
	case !t.store.key.counts(f.image, n, mac):
		return errCount
	case !f.image.policy.mayRelease(n):
		return errStale
	}
	changed, err := t.exec(`UPDATE releases SET n = ?, mac = ? WHERE image = ? AND n = ?`, n+1, t.store.key.countMAC(f.image, n+1), f.image.name, n)
	if err == nil && changed != 1 {
		err = errStale
	}
	return err
}

// Image is what a store says of an image. It holds no secret.
type Image struct {
	Name          string       `json:"name"`
	Version       int64        `json:"version"`
	Registered    time.Time    `json:"registered"`
	Revoked       bool         `json:"revoked"`
	Mode          measure.Mode `json:"mode"`   // of the policy's first way in
	Policy        string       `json:"policy"` // guest policy of SEV sessions, empty without that way in
	PolicyVersion int64        `json:"policy_version"`
	Digests       []string     `json:"digests"` // of all ways in
	DiskUUID      string       `json:"disk_uuid"`
	Released      int64        `json:"released"`
}

// Images lists the images by name.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	rows, err := s.read.rows(ctx, `SELECT `+imageColumns+`, r.n FROM `+imageTables+` LEFT JOIN releases r ON r.image = i.name ORDER BY i.name`)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	defer rows.Close()
	list := []Image{}
	for rows.Next() {
		var n sql.NullInt64
		m, err := s.scanImage(rows.Scan, &n)
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		about := Image{Name: m.name, Version: m.version, Registered: m.registered, Revoked: m.sealed == nil, PolicyVersion: m.policyVersion,
			Digests: []string{}, DiskUUID: m.record.Disk.UUID, Released: n.Int64}
		if m.policy.SEV != nil {
			about.Policy = m.policy.SEV.Session().String()
		}
		for _, way := range m.policy.Modes() {
			for _, mode := range way {
				for _, d := range m.record.Digests {
					if d.Mode == mode {
						about.Digests = append(about.Digests, hex.EncodeToString(d.Digest))
					}
				}
			}
			if about.Mode == "" {
				about.Mode = way[0]
			}
		}
		list = append(list, about)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return list, nil
}
