package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Registration says what an image is, what it asks for, and what it gets.
//
// A replacement is the image's next version, with a record and a policy of its own. It keeps the secrets that it does not
// give, in their versions and with rotations under way; but the passphrase only if its record is of the same disk (UUID), for
// another disk has another. A revoked image has no secrets to keep.
type Registration struct {
	Name       string
	Record     *measure.Record
	Policy     Policy
	Passphrase []byte   // of the disk; sealed in the store
	Secrets    []Secret // others
	Replace    bool     // an image of that name may be there
	Replaces   int64    // with Replace: it must be there in this version; 0: whatever is there
}

// Secret is a secret under the GUID of its entry in the guest's secret table.
type Secret struct {
	ID   guid.GUID
	Data []byte
}

// Errors of a registration.
var (
	ErrName       = errors.New("image needs a name of 1 to 64 letters, digits, '.', '_', '-'")
	ErrImageThere = errors.New("an image of that name is registered")
	ErrNoDigest   = errors.New("record has no launch digest of the mode that the policy asks for")
	ErrNoSecret   = errors.New("no passphrase given")
	// ErrChanged says that an image or a policy is not of the version that was to be replaced: somebody else was faster.
	ErrChanged = errors.New("was changed meanwhile: look at it again")
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
	if len(r.Passphrase) == 0 && !r.Replace {
		complaints = append(complaints, ErrNoSecret)
	}
	seen := map[guid.GUID]bool{sev.DiskPassphrase: true}
	for _, s := range r.Secrets {
		if err := checkSecret(s); err != nil {
			complaints = append(complaints, err)
		} else if seen[s.ID] {
			complaints = append(complaints, fmt.Errorf("%w: %v", sev.ErrDuplicateSecret, s.ID))
		}
		seen[s.ID] = true
	}
	if r.Record == nil {
		return errors.Join(append(complaints, errors.New("no boot record given"))...)
	}
	if err := r.Record.Validate(); err != nil {
		return errors.Join(append(complaints, err)...)
	}
	for _, way := range r.Policy.Modes() {
		if !hasDigest(r.Record, way) {
			complaints = append(complaints, fmt.Errorf("%w: %s", ErrNoDigest, way[0]))
		}
	}
	if len(complaints) == 0 && len(r.Passphrase) > 0 {
		v := new(vault)
		r.give(v, time.Time{})
		defer v.wipe()
		if err := v.fits(r.Record); err != nil {
			complaints = append(complaints, err)
		}
	}
	return errors.Join(complaints...)
}

// hasDigest says whether the record has a digest of one of the modes.
func hasDigest(record *measure.Record, modes []measure.Mode) bool {
	for _, d := range record.Digests {
		for _, mode := range modes {
			if d.Mode == mode {
				return true
			}
		}
	}
	return false
}

// give puts the registration's secrets into the vault.
func (r Registration) give(v *vault, now time.Time) {
	if len(r.Passphrase) > 0 {
		v.put(sev.DiskPassphrase, r.Passphrase, now)
	}
	for _, s := range r.Secrets {
		v.put(s.ID, s.Data, now)
	}
}

// Register puts an image into the store, in one transaction with its policy, its secrets and its audit entry, and
// gives its version. A version made by Replace ends the sessions of the one before, and takes a revoked image up again.
func (s *Store) Register(ctx context.Context, r Registration, now time.Time) (version int64, err error) {
	if err := r.Validate(); err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	m := &image{name: r.Name, registered: now, record: r.Record, policy: r.Policy}
	if m.recordB, err = r.Record.Encode(); err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	if m.policyB, err = r.Policy.Encode(); err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	err = s.write(ctx, func(t *transaction) error { return t.register(ctx, r, m, now) })
	if err != nil {
		return 0, fmt.Errorf("register image: %w", err)
	}
	return m.version, nil
}

func (t *transaction) register(ctx context.Context, r Registration, m *image, now time.Time) error {
	m.version, m.policyVersion = 1, 1
	secrets := new(vault)
	revoked, err := t.revocations()
	if err != nil {
		return err
	}
	have, err := t.image(r.Name)
	switch {
	case errors.Is(err, ErrNoImage) && r.Replaces == 0:
	case err != nil:
		return err
	case !r.Replace:
		return fmt.Errorf("%w: %s", ErrImageThere, r.Name)
	case r.Replaces != 0 && r.Replaces != have.version:
		return fmt.Errorf("%w: image is at version %d, not %d", ErrChanged, have.version, r.Replaces)
	default:
		m.version, m.policyVersion = have.version+1, have.policyVersion+1
		_, again := revoked.find(RevokedImage, r.Name)
		if again {
			err = t.unrevoke(ctx, RevokedImage, r.Name, now)
		} else {
			secrets, err = t.kept(r, have)
		}
		if err != nil {
			return err
		}
	}
	defer secrets.wipe()
	r.give(secrets, now)
	if err := secrets.check(m.name, revoked); err != nil {
		return err
	}
	if err := secrets.fits(r.Record); err != nil {
		return err
	}
	if err := t.keepDigests(m.name, m.version, r.Record); err != nil {
		return err
	}
	if err := t.writeImage(m, secrets); err != nil {
		return err
	}
	if err := t.setReleases(m, 0); err != nil {
		return err
	}
	if err := signRevocations(t.ctx, t.on, t.store.key); err != nil { // the first image begins the list; it was checked above
		return err
	}
	return t.newPolicy(ctx, m, EventRegister, now)
}

// kept gives what a replacement has of the secrets before it.
func (t *transaction) kept(r Registration, have *image) (*vault, error) {
	v, err := t.store.key.vault(have)
	if err != nil {
		return nil, fmt.Errorf("open image's secrets: %w: revoke the image, and register it again with all of them", err)
	}
	if len(r.Passphrase) == 0 && have.record.Disk.UUID != r.Record.Disk.UUID {
		v.wipe()
		return nil, fmt.Errorf("%w: the record is of another disk", ErrNoSecret)
	}
	return v, nil
}

// newPolicy adds the image's policy to those that it has had, and writes the audit entry.
func (t *transaction) newPolicy(ctx context.Context, m *image, event Event, now time.Time) error {
	if _, err := t.exec(`INSERT INTO policies (image, version, image_version, policy, made) VALUES (?, ?, ?, ?, ?)`,
		m.name, m.policyVersion, m.version, m.policyB, now.Unix()); err != nil {
		return err
	}
	digest := sha256.Sum256(m.policyB)
	return t.audit(Entry{Time: now, Event: event, Image: m.name, Version: m.version,
		PolicyVersion: m.policyVersion, PolicyDigest: hex.EncodeToString(digest[:])}.by(ctx))
}
