package storekey

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// ErrIdentity says that a file holds no identity of age's own kinds. Its content is not repeated.
var ErrIdentity = errors.New("no age identity: make one with age-keygen, -pq for one that withstands quantum computers")

// sealedBy wraps by age, for an identity in a file (X25519, or ML-KEM-768 with X25519). Files of the age command
// open, with ASCII armor too.
type sealedBy struct {
	reader
	identity string // name of the identity's file
}

func (s *sealedBy) identities() ([]age.Identity, error) {
	text, err := s.private(s.identity, maxIdentity)
	if err != nil {
		return nil, fmt.Errorf("read age identity: %w", err)
	}
	defer clear(text)
	// The library's errors repeat lines: they are left out.
	found, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("read age identity %s: %w", s.identity, ErrIdentity)
	}
	return found, nil
}

func (s *sealedBy) Unwrap(_ context.Context, wrapped []byte) ([]byte, error) {
	identities, err := s.identities()
	if err != nil {
		return nil, err
	}
	var source io.Reader = bytes.NewReader(wrapped)
	if bytes.HasPrefix(wrapped, []byte(armor.Header)) {
		source = armor.NewReader(source)
	}
	plain, err := age.Decrypt(source, identities...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrapped, err)
	}
	text, err := bounded(plain, "it", TextSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWrapped, err)
	}
	return text, nil
}

func (s *sealedBy) Wrap(_ context.Context, plain []byte) ([]byte, error) {
	identities, err := s.identities()
	if err != nil {
		return nil, err
	}
	var recipients []age.Recipient
	for _, identity := range identities {
		switch i := identity.(type) {
		case *age.X25519Identity:
			recipients = append(recipients, i.Recipient())
		case *age.HybridIdentity:
			recipients = append(recipients, i.Recipient())
		default:
			return nil, fmt.Errorf("age identity %s: %w", s.identity, ErrIdentity)
		}
	}
	var wrapped bytes.Buffer
	w, err := age.Encrypt(&wrapped, recipients...)
	if err != nil {
		return nil, fmt.Errorf("encrypt by age: %w", err)
	}
	if _, err := w.Write(plain); err != nil {
		return nil, fmt.Errorf("encrypt by age: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("encrypt by age: %w", err)
	}
	return wrapped.Bytes(), nil
}
