package storekey

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Wrapper encrypts small values under a key that stays elsewhere: in a KMS, an HSM, a file of another. Both
// methods are safe for concurrent use, authenticate what they decrypt, and keep no secret in their errors.
type Wrapper interface {
	// Wrap gives text or bytes that Unwrap takes, of at most 32 KiB.
	Wrap(ctx context.Context, plain []byte) ([]byte, error)

	// Unwrap gives what Wrap was given. The caller wipes it. What was not wrapped under the key is ErrWrapped.
	Unwrap(ctx context.Context, wrapped []byte) ([]byte, error)
}

// Errors of wrappers.
var (
	ErrWrapped     = errors.New("wrapped store key does not open: it was changed, or wrapped under another key")
	ErrDenied      = errors.New("access is denied")
	ErrUnavailable = errors.New("service is not available")
	ErrAnswer      = errors.New("answer is not understood")
)

// Wrapped is a Keeper whose file holds the key's text, encrypted by a Wrapper. The file is no secret.
type Wrapped struct {
	Name    string // of the file
	Wrapper Wrapper
}

// Key unwraps the file's content.
func (w *Wrapped) Key(ctx context.Context) ([]byte, error) {
	wrapped, err := public(w.Name, maxWrapped)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read wrapped store key: %w: wrap a key first", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read wrapped store key: %w", err)
	}
	text, err := w.Wrapper.Unwrap(ctx, wrapped)
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("unwrap store key %s: %w", w.Name, err)
	}
	raw, err := ParseText(text)
	if err != nil {
		return nil, fmt.Errorf("unwrap store key %s: what it holds is %w", w.Name, err)
	}
	return raw, nil
}

// File names the file.
func (w *Wrapped) File() string { return w.Name }

// Seal wraps a key's text, and unwraps it again: a key that could not be had back is never handed out.
func (w *Wrapped) Seal(ctx context.Context, raw []byte) ([]byte, error) {
	text, err := Text(raw)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	wrapped, err := w.Wrapper.Wrap(ctx, text)
	if err != nil {
		return nil, fmt.Errorf("wrap store key: %w", err)
	}
	if len(wrapped) > maxWrapped {
		return nil, fmt.Errorf("wrap store key: %w: %d bytes", ErrTooLarge, len(wrapped))
	}
	again, err := w.Wrapper.Unwrap(ctx, wrapped)
	defer clear(again)
	if err != nil {
		return nil, fmt.Errorf("unwrap the store key that was just wrapped: %w", err)
	}
	if string(again) != string(text) {
		return nil, fmt.Errorf("unwrap the store key that was just wrapped: %w: it is another", ErrAnswer)
	}
	return wrapped, nil
}
