package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/harden"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/config"
	"github.com/sealboot/sealboot/keyserver/storekey"
)

// keeper is what the commands of administrators work on: the store of this machine, or a server (remoteKeeper).
type keeper interface {
	Register(ctx context.Context, r keyserver.Registration, now time.Time) (version int64, err error)
	Images(ctx context.Context) ([]keyserver.Image, error)

	SetPolicy(ctx context.Context, image string, p keyserver.Policy, now time.Time) (version int64, err error)
	Policies(ctx context.Context, image string) ([]keyserver.PolicyVersion, error)

	PutSecret(ctx context.Context, image string, id guid.GUID, data []byte, now time.Time) (version int64, err error)
	RotateSecret(ctx context.Context, image string, id guid.GUID, data []byte, now time.Time) (version int64, err error)
	ConfirmSecret(ctx context.Context, image string, id guid.GUID, now time.Time) error
	RollBackSecret(ctx context.Context, image string, id guid.GUID, now time.Time) (version int64, err error)
	ListSecrets(ctx context.Context, image string) ([]keyserver.SecretInfo, error)

	Revoke(ctx context.Context, r keyserver.Revocation) error
	Unrevoke(ctx context.Context, kind keyserver.RevocationKind, value string, now time.Time) error
	Revocations(ctx context.Context) ([]keyserver.Revocation, error)

	Principals(now func() time.Time) access.Principals

	Close() error
}

// storeFlags name a store and the place of its key.
type storeFlags struct {
	location, key, config string
	server                serverFlags // or a server, of commands that work over the network
}

func (f *storeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.location, "store", "", "the store: a folder, or the connection string of a PostgreSQL database")
	flags.StringVar(&f.key, "store-key", "", "place of the store key, as file:PATH (default: file:, the store folder's name and .key); see key --help")
	flags.StringVar(&f.config, "config", "", "the server's configuration, instead of --store: it names store and store key")
	cmd.MarkFlagDirname("store")
	cmd.MarkFlagFilename("config", "toml")
}

// place is a store and where its key is.
type place struct {
	location string
	key      storekey.Spec
	options  []keyserver.Option
}

// outside is what places of store keys need of this process's surroundings.
func outside() storekey.Outside {
	return storekey.Outside{Lookup: os.LookupEnv, Credentials: os.Getenv("CREDENTIALS_DIRECTORY")}
}

// place reads the flags, and the configuration if they name one.
func (f *storeFlags) place() (place, error) {
	switch {
	case f.config != "" && f.location != "":
		return place{}, cli.Usagef("--config names the store: give it, or --store")
	case f.config != "":
		c, err := config.Load(f.config, outside())
		if err != nil {
			return place{}, err
		}
		p := placeOf(c)
		if f.key != "" {
			if p.key, err = f.spec(); err != nil {
				return place{}, err
			}
		}
		return p, nil
	case f.location == "":
		return place{}, cli.Usagef("no store: give --store DIR, or --config FILE; where it serves, --server URL")
	}
	spec, err := f.spec()
	return place{location: f.location, key: spec}, err
}

func (f *storeFlags) spec() (storekey.Spec, error) {
	if f.key == "" {
		if keyserver.IsPostgres(f.location) {
			return storekey.Spec{}, cli.Usagef("a store in PostgreSQL has its key elsewhere: give --store-key file:PATH, or another place")
		}
		return storekey.Spec{Kind: storekey.File, Path: filepath.Clean(f.location) + ".key"}, nil
	}
	spec, err := storekey.Parse(f.key)
	if err != nil {
		return storekey.Spec{}, cli.Usagef("--store-key: %w", err)
	}
	return spec, nil
}

func placeOf(c *config.Config) place {
	p := place{location: c.Store.Folder, key: c.StoreKey}
	if c.Store.URL != "" {
		p.location = c.Store.URL
		if c.Store.PasswordFile != "" {
			p.options = append(p.options, keyserver.WithPassword(func() ([]byte, error) { return c.Password(outside()) }))
		}
	}
	return p
}

// readKey reads the store key. A variable that had it is gone then, from this process and those that it starts.
func readKey(ctx context.Context, spec storekey.Spec) (*keyserver.Key, error) {
	raw, err := readRawKey(ctx, spec)
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	return keyserver.NewKey(raw)
}

func readRawKey(ctx context.Context, spec storekey.Spec) ([]byte, error) {
	if err := harden.NoDumps(); err != nil {
		return nil, err
	}
	source, err := spec.Open(outside())
	if err != nil {
		return nil, err
	}
	raw, err := source.Key(ctx)
	if spec.Kind == storekey.Env {
		os.Unsetenv(spec.Name)
	}
	if errors.Is(err, os.ErrNotExist) && spec.Kind == storekey.File {
		return nil, fmt.Errorf("%w: say with --store-key where the key is", err)
	}
	return raw, err
}

// open opens a store that is there.
func (p place) open(ctx context.Context) (*keyserver.Store, error) {
	there, err := keyserver.StoreExists(ctx, p.location, p.options...)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, fmt.Errorf("%w in %s: sealboot-keyserver register makes one", keyserver.ErrNoStore, p.location)
	}
	key, err := readKey(ctx, p.key)
	if err != nil {
		return nil, err
	}
	return p.openWith(ctx, key)
}

func (p place) openWith(ctx context.Context, key *keyserver.Key) (*keyserver.Store, error) {
	store, err := keyserver.OpenStore(ctx, p.location, key, rand.Reader, time.Now(), p.options...)
	if errors.Is(err, keyserver.ErrWrongKey) {
		return nil, fmt.Errorf("%w: %s is not its key, give the right one with --store-key", err, p.key)
	}
	return store, err
}

// make makes the store if there is none, with its key if that is to be in a file that is not there, and opens it. A key is
// never made for a store that is there.
func (p place) make(ctx context.Context) (*keyserver.Store, error) {
	there, err := keyserver.StoreExists(ctx, p.location, p.options...)
	if err != nil {
		return nil, err
	}
	if there {
		return p.open(ctx)
	}
	// The key comes first: a store is never there without one.
	if p.key.Kind == storekey.File {
		if _, err := os.Lstat(p.key.Path); errors.Is(err, os.ErrNotExist) {
			if err := newKey(ctx, p.key); err != nil {
				return nil, err
			}
		}
	}
	key, err := readKey(ctx, p.key)
	if err != nil {
		return nil, err
	}
	if err := keyserver.CreateStore(ctx, p.location, key, time.Now(), p.options...); err != nil && !errors.Is(err, keyserver.ErrStoreThere) {
		return nil, err
	}
	return p.openWith(ctx, key)
}

// newKey makes a store key and puts it where the place keeps it.
func newKey(ctx context.Context, spec storekey.Spec) error {
	raw, err := storekey.New(rand.Reader)
	if err != nil {
		return err
	}
	defer clear(raw)
	return putKey(ctx, spec, raw)
}

// putKey writes a key's file, which must not be there: a store key that is lost takes its store with it.
func putKey(ctx context.Context, spec storekey.Spec, raw []byte) error {
	source, err := spec.Open(outside())
	if err != nil {
		return err
	}
	place, ok := source.(storekey.Keeper)
	if !ok {
		return cli.Usagef("a key cannot be put into %s: put it into file:PATH, and bring it there by the place's own tools", spec)
	}
	if _, err := os.Lstat(place.File()); err == nil {
		return cli.Refusef("%s is there already: it may be some store's key; choose another name", place.File())
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write store key: %w", err)
	}
	content, err := place.Seal(ctx, raw)
	defer clear(content)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(place.File()), 0o700); err != nil {
		return fmt.Errorf("write store key: %w", err)
	}
	if err := atomicfile.WriteFile(place.File(), content, 0o600); err != nil {
		return fmt.Errorf("write store key: %w", err)
	}
	return nil
}

// open opens the store that the flags name, as it is.
func (f *storeFlags) open(ctx context.Context) (*keyserver.Store, error) {
	p, err := f.place()
	if err != nil {
		return nil, err
	}
	return p.open(ctx)
}

// with has do work on what the flags name.
func (f *storeFlags) with(ctx context.Context, do func(keeper) error) (err error) {
	if f.remote() {
		c, err := f.server.client()
		if err != nil {
			return err
		}
		return remoteNo(do(remoteKeeper{c}))
	}
	s, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	return clearNo(do(s))
}

// withNew is with, and makes a store where there is none.
func (f *storeFlags) withNew(ctx context.Context, do func(keeper) error) (err error) {
	if f.remote() {
		return f.with(ctx, do)
	}
	p, err := f.place()
	if err != nil {
		return err
	}
	s, err := p.make(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	return clearNo(do(s))
}

// closing joins a store's closing to the error of a command's work.
func closing(store interface{ Close() error }, err *error) {
	*err = errors.Join(*err, store.Close())
}

// clearNo gives exit code 3 to what the store's state refuses.
func clearNo(err error) error {
	if coded := (*cli.ExitError)(nil); err == nil || errors.As(err, &coded) {
		return err
	}
	for _, no := range []error{keyserver.ErrNoImage, keyserver.ErrImageThere, keyserver.ErrRevoked, keyserver.ErrNotRevoked, keyserver.ErrStaysRevoked,
		keyserver.ErrNoSuchSecret, keyserver.ErrSecretThere, keyserver.ErrRotating, keyserver.ErrNotRotating, access.ErrThere, access.ErrNoPrincipal} {
		if errors.Is(err, no) {
			return cli.Refusef("%s", cli.OneLine(err))
		}
	}
	return err
}
