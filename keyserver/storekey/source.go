package storekey

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// Source gives the store key.
type Source interface {
	// Key gives 32 bytes, for the caller to wipe. An error never holds any of them. It is safe for concurrent use.
	Key(ctx context.Context) ([]byte, error)
}

// Keeper is a Source that keeps the key in a file, so that a key can be put there.
type Keeper interface {
	Source

	// File names the file.
	File() string

	// Seal gives the file's content for a key. The caller writes it, for its owner alone, and wipes both.
	Seal(ctx context.Context, raw []byte) ([]byte, error)
}

// Outside is what places need of a process's surroundings.
type Outside struct {
	Lookup      func(name string) (string, bool) // of the environment: os.LookupEnv
	Credentials string                           // $CREDENTIALS_DIRECTORY, "" if systemd gives none
}

func (o Outside) reader() reader { return reader{credentials: o.Credentials, uid: os.Geteuid()} }

// ErrMissing says that a variable, a credential or systemd's folder of credentials is not there.
var ErrMissing = errors.New("not there")

// file is a key text in a file.
type file struct {
	reader
	name string
}

func (f *file) Key(context.Context) ([]byte, error) {
	text, err := f.private(f.name, TextSize)
	if errors.Is(err, ErrTooLarge) {
		err = fmt.Errorf("%s: %w", f.name, ErrNotKey)
	}
	if err != nil {
		return nil, fmt.Errorf("read store key: %w", err)
	}
	defer clear(text)
	raw, err := ParseText(text)
	if err != nil {
		return nil, fmt.Errorf("read store key %s: %w", f.name, err)
	}
	return raw, nil
}

func (f *file) File() string { return f.name }

func (f *file) Seal(_ context.Context, raw []byte) ([]byte, error) { return Text(raw) }

// variable is a key text in the environment; the line feed at its end may lack.
type variable struct {
	name   string
	lookup func(string) (string, bool)
}

func (v *variable) Key(context.Context) ([]byte, error) {
	value, ok := v.lookup(v.name)
	if !ok {
		return nil, fmt.Errorf("read store key: variable %s is %w: set it to the key's text", v.name, ErrMissing)
	}
	if len(value) > TextSize {
		return nil, fmt.Errorf("read store key from variable %s: %w", v.name, ErrNotKey)
	}
	text := append(make([]byte, 0, TextSize), value...)
	defer clear(text[:cap(text)])
	if len(text) == TextSize-1 {
		text = append(text, '\n')
	}
	raw, err := ParseText(text)
	if err != nil {
		return nil, fmt.Errorf("read store key from variable %s: %w", v.name, err)
	}
	return raw, nil
}

// credential is a key text that systemd hands to the unit.
type credential struct {
	reader
	name string
}

func (c *credential) Key(context.Context) ([]byte, error) {
	if c.credentials == "" {
		return nil, fmt.Errorf("read store key: systemd's folder of credentials is %w: start it as a unit with LoadCredential=%s:FILE", ErrMissing, c.name)
	}
	// The name has no slash, and a link in the folder leads nowhere outside of it.
	f, err := os.OpenInRoot(c.credentials, c.name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("read store key: credential %s is %w: give the unit LoadCredential=%s:FILE", c.name, ErrMissing, c.name)
	}
	if err != nil {
		return nil, fmt.Errorf("read store key: %w", err)
	}
	defer f.Close()
	text, err := c.opened(f, c.credentials+"/"+c.name, TextSize)
	if errors.Is(err, ErrTooLarge) {
		err = ErrNotKey
	}
	if err != nil {
		return nil, fmt.Errorf("read store key from credential %s: %w", c.name, err)
	}
	defer clear(text)
	raw, err := ParseText(text)
	if err != nil {
		return nil, fmt.Errorf("read store key from credential %s: %w", c.name, err)
	}
	return raw, nil
}
