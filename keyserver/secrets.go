package keyserver

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/sev"
)

// Errors of secrets.
var (
	ErrSecretID      = errors.New("no secret may have this GUID: the server makes that entry itself")
	ErrEmptySecret   = errors.New("secret is empty")
	ErrSecretThere   = errors.New("image has such a secret: rotate it")
	ErrNoSuchSecret  = errors.New("image has no such secret")
	ErrRotating      = errors.New("a rotation of the secret is under way: confirm it or roll it back")
	ErrNotRotating   = errors.New("no rotation of the secret is under way")
	ErrSecretRevoked = fmt.Errorf("secret is %w: take that back first", ErrRevoked)
)

// checkSecret says whether an owner may give the secret.
func checkSecret(s Secret) error {
	switch s.ID {
	case guid.GUID{}, sev.SecretTableHeader, sev.PreviousPassphrase, sev.HeaderPin, sev.ReleaseReceipt:
		return fmt.Errorf("%w: %v", ErrSecretID, s.ID)
	}
	if len(s.Data) == 0 {
		return fmt.Errorf("%w: %v", ErrEmptySecret, s.ID)
	}
	if len(s.Data) > sev.MaxSecret {
		return fmt.Errorf("%w: secret of %d bytes", sev.ErrTableTooLarge, len(s.Data))
	}
	return nil
}

// check refuses secrets that are revoked, and more than there may be.
func (v *vault) check(image string, revoked Revocations) error {
	if len(v.secrets) > maxSecrets {
		return fmt.Errorf("%w: more than %d secrets", sev.ErrTableTooLarge, maxSecrets)
	}
	for _, s := range v.secrets {
		if _, is := revoked.find(RevokedSecret, secretName(image, s.id)); is && s.current.data != nil {
			return fmt.Errorf("%w: %v", ErrSecretRevoked, s.id)
		}
	}
	return nil
}

// changeSecret opens an image's secrets, lets do change one, and seals them again if the guest's table still fits. The
// entry gets the version that do leaves.
func (t *transaction) changeSecret(image string, id guid.GUID, entry Entry, do func(*vault, *secret) error) (Entry, error) {
	revoked, err := t.revocations()
	if err != nil {
		return Entry{}, err
	}
	m, err := t.image(image)
	if err != nil {
		return Entry{}, err
	}
	if reason, is := revoked.find(RevokedImage, image); is {
		return Entry{}, fmt.Errorf("image is %w: %s", ErrRevoked, reason)
	}
	v, err := t.store.key.vault(m)
	if err != nil {
		return Entry{}, fmt.Errorf("open image's secrets: %w", err)
	}
	defer v.wipe()
	if err := do(v, v.find(id)); err != nil {
		return Entry{}, err
	}
	if err := v.check(image, revoked); err != nil {
		return Entry{}, err
	}
	if err := v.fits(m.record); err != nil && !errors.Is(err, ErrNoSecret) { // its passphrase may be revoked
		return Entry{}, err
	}
	if err := t.store.key.sealVault(m, v, t.store.random); err != nil {
		return Entry{}, err
	}
	if err := t.writeSecrets(m); err != nil {
		return Entry{}, err
	}
	entry.Image, entry.Version, entry.PolicyVersion, entry.Target = m.name, m.version, m.policyVersion, id.String()
	entry.SecretVersion = v.find(id).current.version
	return entry, nil
}

// change is changeSecret as a write of its own; it gives the secret's version.
func (s *Store) change(ctx context.Context, image string, id guid.GUID, entry Entry, do func(*vault, *secret) error) (version int64, err error) {
	err = s.write(ctx, func(t *transaction) error {
		e, err := t.changeSecret(image, id, entry.by(ctx), do)
		if err != nil {
			return err
		}
		version = e.SecretVersion
		return t.audit(e)
	})
	if err != nil {
		return 0, fmt.Errorf("%s %v of image %s: %w", entry.Event, id, clean(image), err)
	}
	return version, nil
}

// PutSecret gives an image one more secret, and its version.
func (s *Store) PutSecret(ctx context.Context, image string, id guid.GUID, data []byte, now time.Time) (version int64, err error) {
	if err := checkSecret(Secret{id, data}); err != nil {
		return 0, fmt.Errorf("put secret: %w", err)
	}
	return s.change(ctx, image, id, Entry{Time: now, Event: EventPut}, func(v *vault, have *secret) error {
		if have != nil && have.current.data != nil {
			return ErrSecretThere
		}
		v.put(id, data, now)
		return nil
	})
}

// RotateSecret gives a secret its next version, and keeps the one before until the guest has used the new one (Server.Confirm),
// or the owner ends the rotation. The guest gets the new one; of the disk's passphrase it gets both, so that it can open the
// disk by the old one and change it to the new.
func (s *Store) RotateSecret(ctx context.Context, image string, id guid.GUID, data []byte, now time.Time) (version int64, err error) {
	if err := checkSecret(Secret{id, data}); err != nil {
		return 0, fmt.Errorf("rotate secret: %w", err)
	}
	return s.change(ctx, image, id, Entry{Time: now, Event: EventRotate}, func(v *vault, have *secret) error {
		switch {
		case have == nil || have.current.data == nil:
			return ErrNoSuchSecret
		case have.rotating():
			return ErrRotating
		}
		have.previous = have.current
		have.next(data, now)
		v.serial++
		return nil
	})
}

// ConfirmSecret ends a rotation: the version before is gone from the store.
func (s *Store) ConfirmSecret(ctx context.Context, image string, id guid.GUID, now time.Time) error {
	_, err := s.change(ctx, image, id, Entry{Time: now, Event: EventConfirm, Reason: "by the owner"}, confirm)
	return err
}

func confirm(_ *vault, have *secret) error {
	if have == nil || !have.rotating() {
		return ErrNotRotating
	}
	have.settle()
	return nil
}

// RollBackSecret takes a rotation back: the value before is the secret's next version, and the one that was to follow it is gone.
func (s *Store) RollBackSecret(ctx context.Context, image string, id guid.GUID, now time.Time) (version int64, err error) {
	return s.change(ctx, image, id, Entry{Time: now, Event: EventRollBack}, func(v *vault, have *secret) error {
		if have == nil || !have.rotating() {
			return ErrNotRotating
		}
		clear(have.current.data)
		have.next(have.previous.data, now)
		have.settle()
		v.serial++
		return nil
	})
}

// RevokeSecret takes a secret out of use at once; its values leave the store for good. Without its disk's passphrase an
// image has nothing that would be released.
func (s *Store) RevokeSecret(ctx context.Context, image string, id guid.GUID, reason string, now time.Time) error {
	return s.Revoke(ctx, Revocation{Kind: RevokedSecret, Value: secretName(image, id), Reason: reason, Time: now})
}

// wipeSecret is a revocation's part in the image's secrets. The version number stays taken.
func (t *transaction) wipeSecret(image string, id guid.GUID, entry Entry) (Entry, error) {
	return t.changeSecret(image, id, entry, func(v *vault, have *secret) error {
		if have == nil || have.current.data == nil {
			return ErrNoSuchSecret
		}
		clear(have.current.data)
		have.current.data = nil
		have.settle()
		v.serial++
		return nil
	})
}

// SecretInfo is what a store says of a secret.
type SecretInfo struct {
	ID       guid.GUID  `json:"id"`
	Version  int64      `json:"version"`
	Made     time.Time  `json:"made"`
	Bytes    int        `json:"bytes"`
	Previous int64      `json:"previous_version,omitempty"` // while a rotation is under way
	Since    *time.Time `json:"rotating_since,omitempty"`
	Revoked  bool       `json:"revoked,omitempty"` // its value is gone
}

// ListSecrets lists an image's secrets by GUID, without their values.
func (s *Store) ListSecrets(ctx context.Context, image string) ([]SecretInfo, error) {
	f, err := s.find(ctx, image)
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	if f.image == nil {
		return nil, fmt.Errorf("list secrets: %w: %s", ErrNoImage, clean(image))
	}
	list := []SecretInfo{}
	_, v, err := f.open(s.key)
	if errors.Is(err, ErrRevoked) {
		return list, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list secrets: %w", err)
	}
	defer v.wipe()
	for _, x := range v.secrets {
		info := SecretInfo{ID: x.id, Version: x.current.version, Made: x.current.made, Bytes: len(x.current.data), Revoked: x.current.data == nil}
		if x.rotating() {
			info.Previous, info.Since = x.previous.version, &x.current.made
		}
		list = append(list, info)
	}
	return list, nil
}
