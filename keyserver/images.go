package keyserver

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Registration says what an image is, what it asks for, and what it gets.
type Registration struct {
	Name       string
	Record     *measure.Record
	Policy     Policy
	Passphrase []byte // of the disk; sealed in the store
	Replace    bool   // an image of that name may be there: this is its next version
}

// Errors of a registration.
var (
	ErrName       = errors.New("image needs a name of 1 to 64 letters, digits, '.', '_', '-'")
	ErrImageThere = errors.New("an image of that name is registered")
	ErrNoDigest   = errors.New("record has no launch digest of the mode that the policy asks for")
	ErrNoSecret   = errors.New("no passphrase given")
	ErrNoImage    = errors.New("no image of that name")
)

// Validate gives every complaint at once: an image that is taken can also be served.
func (r Registration) Validate() error {
	var complaints []error
	if !wire.ValidImage(r.Name) {
		complaints = append(complaints, ErrName)
	}
	if err := r.Policy.Validate(); err != nil {
		complaints = append(complaints, err)
	}
	if len(r.Passphrase) == 0 {
		complaints = append(complaints, ErrNoSecret)
	}
	if r.Record == nil {
		return errors.Join(append(complaints, errors.New("no boot record given"))...)
	}
	if err := r.Record.Validate(); err != nil {
		return errors.Join(append(complaints, err)...)
	}
	if mode := r.Policy.Mode(); len(digests(r.Record, mode)) == 0 {
		complaints = append(complaints, fmt.Errorf("%w: %s", ErrNoDigest, mode))
	}
	table, err := secretTable(r.Record, r.Passphrase)
	clear(table)
	if err != nil {
		complaints = append(complaints, err)
	}
	return errors.Join(complaints...)
}

// secretTable makes what the guest's firmware finds: the disk's passphrase and the digest of its LUKS header, if
// they fit the firmware's secret area.
func secretTable(record *measure.Record, passphrase []byte) ([]byte, error) {
	pin := record.Disk.HeaderPin
	return sev.SecretTable{
		{GUID: sev.DiskPassphrase, Data: passphrase},
		{GUID: sev.HeaderPin, Data: pin[:]},
	}.Encode(int(record.Firmware.SecretArea.Size))
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

// image is a registered image as the store has it.
type image struct {
	name             string
	version          int64
	registered       time.Time
	revoked          bool
	recordB, policyB []byte // as stored, and as bound into the image's secrets
	record           *measure.Record
	policy           Policy
}

// purpose binds a secret to the image's version and to what the version asks for: who changes the record or
// the policy in the store gets no secret opened.
func (m *image) purpose(id string) [][]byte {
	return [][]byte{[]byte("secret"), []byte(m.name), number(m.version), m.recordB, m.policyB, []byte(id)}
}

func (m *image) parse() (err error) {
	if m.record, err = measure.ReadRecord(bytes.NewReader(m.recordB)); err != nil {
		return fmt.Errorf("image %s: %w", m.name, err)
	}
	if m.policy, err = decodePolicy(m.policyB); err != nil {
		return fmt.Errorf("image %s: %w", m.name, err)
	}
	return nil
}

const imageColumns = `name, version, record, policy, registered, revoked`

func scanImage(scan func(...any) error) (*image, error) {
	m := new(image)
	var registered int64
	err := scan(&m.name, &m.version, &m.recordB, &m.policyB, &registered, &m.revoked)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, ErrNoImage
	}
	if err != nil {
		return nil, err
	}
	m.registered = time.Unix(registered, 0).UTC()
	return m, m.parse()
}

func (t *transaction) image(name string) (*image, error) {
	return scanImage(t.row(`SELECT `+imageColumns+` FROM images WHERE name = ?`, name).Scan)
}

// Register puts an image into the store, in one transaction with its secret and its audit entry, and
// gives its version. A version made by Replace ends the sessions of the one before.
func (s *Store) Register(ctx context.Context, r Registration, now time.Time) (version int64, err error) {
	if err := r.Validate(); err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	m := &image{name: r.Name, version: 1, registered: now}
	if m.recordB, err = r.Record.Encode(); err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	if m.policyB, err = r.Policy.encode(); err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	err = s.write(ctx, func(t *transaction) error {
		have, err := t.image(r.Name)
		switch {
		case errors.Is(err, ErrNoImage):
		case err != nil:
			return err
		case !r.Replace:
			return fmt.Errorf("%w: %s", ErrImageThere, r.Name)
		default:
			m.version = have.version + 1
		}
		if err := t.keepDigests(m.name, m.version, r.Record); err != nil {
			return err
		}
		return t.register(m, r.Passphrase)
	})
	if err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	return m.version, nil
}

func (t *transaction) register(m *image, passphrase []byte) error {
	_, err := t.exec(`INSERT INTO images (`+imageColumns+`) VALUES (?, ?, ?, ?, ?, 0)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version, record = excluded.record,
		policy = excluded.policy, registered = excluded.registered, revoked = 0`,
		m.name, m.version, m.recordB, m.policyB, m.registered.Unix())
	if err != nil {
		return err
	}
	id := sev.DiskPassphrase.String()
	sealed, err := t.store.key.seal(t.store.random, passphrase, m.purpose(id)...)
	if err != nil {
		return err
	}
	if _, err := t.exec(`DELETE FROM secrets WHERE image = ?`, m.name); err != nil {
		return err
	}
	if _, err := t.exec(`INSERT INTO secrets (image, id, sealed) VALUES (?, ?, ?)`, m.name, id, sealed); err != nil {
		return err
	}
	return t.audit(Entry{Time: m.registered, Event: EventRegister, Image: m.name, Version: m.version})
}

// passphrase opens an image's secret. The caller wipes it.
func (t *transaction) passphrase(m *image) ([]byte, error) {
	id := sev.DiskPassphrase.String()
	var sealed []byte
	if err := t.row(`SELECT sealed FROM secrets WHERE image = ? AND id = ?`, m.name, id).Scan(&sealed); err != nil {
		return nil, err
	}
	return t.store.key.open(sealed, m.purpose(id)...)
}

// Image is what a store says of an image. It holds no secret.
type Image struct {
	Name       string       `json:"name"`
	Version    int64        `json:"version"`
	Registered time.Time    `json:"registered"`
	Revoked    bool         `json:"revoked"`
	Mode       measure.Mode `json:"mode"`
	Policy     string       `json:"policy"`
	Digests    []string     `json:"digests"` // of the mode
	DiskUUID   string       `json:"disk_uuid"`
}

// Images lists the images by name.
func (s *Store) Images(ctx context.Context) ([]Image, error) {
	rows, err := s.read.rows(ctx, `SELECT `+imageColumns+` FROM images ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	defer rows.Close()
	list := []Image{}
	for rows.Next() {
		m, err := scanImage(rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("list images: %w", err)
		}
		about := Image{Name: m.name, Version: m.version, Registered: m.registered, Revoked: m.revoked,
			Mode: m.policy.Mode(), Policy: m.policy.Guest.String(), Digests: []string{}, DiskUUID: m.record.Disk.UUID}
		for _, d := range digests(m.record, m.policy.Mode()) {
			about.Digests = append(about.Digests, hex.EncodeToString(d[:]))
		}
		list = append(list, about)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	return list, nil
}

// Revoke ends an image: no session of it releases anything from now on. Its secret leaves the store, so that
// nobody can take the revocation back but by registering the image again.
func (s *Store) Revoke(ctx context.Context, name string, now time.Time) error {
	err := s.write(ctx, func(t *transaction) error {
		n, err := t.exec(`UPDATE images SET revoked = 1 WHERE name = ? AND revoked = 0`, name)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w, or it is revoked: %s", ErrNoImage, name)
		}
		if _, err := t.exec(`DELETE FROM secrets WHERE image = ?`, name); err != nil {
			return err
		}
		return t.audit(Entry{Time: now, Event: EventRevoke, Image: name})
	})
	if err != nil {
		return fmt.Errorf("revoke image: %w", err)
	}
	return nil
}
