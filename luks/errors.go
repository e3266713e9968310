package luks

import (
	"errors"
	"fmt"
)

// What callers branch on. Reasons for a refusal come inside a *FieldError.
var (
	ErrNotLUKS     = errors.New("not a LUKS header")
	ErrDamaged     = errors.New("both copies of the header are damaged")
	ErrChecksum    = errors.New("checksum does not match")
	ErrStale       = errors.New("older than the other copy")
	ErrCopies      = errors.New("the copies have one sequence number but differ")
	ErrMalformed   = errors.New("malformed")
	ErrCipher      = errors.New("cipher is not allowed")
	ErrHash        = errors.New("hash is not known")
	ErrDigest      = errors.New("volume key digest is not usable")
	ErrOverlap     = errors.New("areas overlap")
	ErrSize        = errors.New("size or offset is out of bounds")
	ErrCost        = errors.New("cost is out of bounds")
	ErrUnsupported = errors.New("not supported")

	ErrNoKey           = errors.New("no key slot opens with this passphrase")
	ErrEmptyPassphrase = errors.New("the passphrase is empty")
	ErrLastKey         = errors.New("this is the last key slot: without it nothing opens the disk any more")
	ErrNoSlot          = errors.New("no such key slot")
	ErrNoSpace         = errors.New("no room for another key slot")
	ErrReadOnly        = errors.New("a LUKS1 header can only be read")
	ErrPartialSector   = errors.New("not a whole number of sectors")
)

// FieldError is a refusal: which part of the header, what is wrong with it, and the kind
// of refusal, one of the sentinels above.
type FieldError struct {
	Field   string // such as keyslots.0.kdf.memory
	Problem string
	Kind    error
}

func (e *FieldError) Error() string {
	if e.Problem == "" {
		return fmt.Sprintf("LUKS header: %s: %v", e.Field, e.Kind)
	}
	return fmt.Sprintf("LUKS header: %s: %v: %s", e.Field, e.Kind, e.Problem)
}

func (e *FieldError) Unwrap() error { return e.Kind }

func refuse(kind error, field, format string, args ...any) error {
	return &FieldError{Field: field, Problem: fmt.Sprintf(format, args...), Kind: kind}
}
