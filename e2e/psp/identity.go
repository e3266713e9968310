package psp

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sealboot/sealboot/sev"
)

// firmwareAPI is the version that a new stand-in's firmware claims: one of Milan's.
var firmwareAPI = sev.API{Major: 1, Minor: 55, Build: 21}

const identityFile = "platform.json"

// OpenPlatform gives the platform whose identity the folder holds, and makes it on first use.
// Of several that make it at once, all use the one that came first.
func OpenPlatform(folder string, random io.Reader) (*sev.Platform, error) {
	name := filepath.Join(folder, identityFile)
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		if err := makePlatform(folder, name, random); err != nil {
			return nil, fmt.Errorf("make platform identity: %w", err)
		}
		data, err = os.ReadFile(name)
	}
	if err != nil {
		return nil, fmt.Errorf("platform identity: %w", err)
	}
	p, err := sev.ParsePlatform(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return p, nil
}

func makePlatform(folder, name string, random io.Reader) error {
	p, err := sev.NewPlatform(random, firmwareAPI)
	if err != nil {
		return err
	}
	data, err := p.Encode()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(folder, "."+identityFile+"-*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	// A link, not a rename: it does not replace what another made meanwhile.
	if err := os.Link(f.Name(), name); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}
