package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
)

// storeFlags name a store and its key.
type storeFlags struct {
	dir, keyFile string
}

func (f *storeFlags) add(cmd *cobra.Command) {
	f.addOptional(cmd)
	cmd.MarkFlagRequired("store")
}

func (f *storeFlags) addOptional(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.dir, "store", "", "the key server's store: a folder, or the connection string of a PostgreSQL database (postgres://HOST/NAME or host=... dbname=...)")
	cmd.Flags().StringVar(&f.keyFile, "store-key-file", "", "file of the store key (default: the store folder's name with .key behind it; none for a connection string)")
	cmd.MarkFlagDirname("store")
}

func (f *storeFlags) keyName() string {
	if f.keyFile != "" {
		return f.keyFile
	}
	return filepath.Clean(f.dir) + ".key"
}

// check says whether store and key are named.
func (f *storeFlags) check() error {
	if f.dir == "" {
		return cli.Usagef("no store: give --store DIR")
	}
	if keyserver.IsPostgres(f.dir) && f.keyFile == "" {
		return cli.Usagef("a store in PostgreSQL has its key elsewhere: give --store-key-file")
	}
	return nil
}

// open opens a store that is there.
func (f *storeFlags) open(ctx context.Context) (*keyserver.Store, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	there, err := keyserver.StoreExists(ctx, f.dir)
	if err != nil {
		return nil, err
	}
	if !there {
		return nil, fmt.Errorf("%w in %s: sealboot-keyserver register makes one", keyserver.ErrNoStore, f.dir)
	}
	key, err := readStoreKey(f.keyName())
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: give the key of the store %s with --store-key-file", err, f.dir)
	}
	if err != nil {
		return nil, err
	}
	store, err := keyserver.OpenStore(ctx, f.dir, key, rand.Reader, time.Now())
	if errors.Is(err, keyserver.ErrWrongKey) {
		return nil, fmt.Errorf("%w: %s is not its key, give the right one with --store-key-file", err, f.keyName())
	}
	return store, err
}

// openOrMake opens the store, or makes it and, if there is none, its key. A key is never made for a store
// that is there.
func (f *storeFlags) openOrMake(ctx context.Context) (*keyserver.Store, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	there, err := keyserver.StoreExists(ctx, f.dir)
	if err != nil {
		return nil, err
	}
	if there {
		return f.open(ctx)
	}
	// The key comes first: a store is never there without one.
	if _, err := os.Lstat(f.keyName()); errors.Is(err, os.ErrNotExist) {
		if err := makeStoreKey(f.keyName()); err != nil {
			return nil, err
		}
	}
	key, err := readStoreKey(f.keyName())
	if err != nil {
		return nil, err
	}
	if err := keyserver.CreateStore(ctx, f.dir, key, time.Now()); err != nil && !errors.Is(err, keyserver.ErrStoreThere) {
		return nil, err
	}
	return f.open(ctx)
}

func makeStoreKey(name string) error {
	text, err := keyserver.NewKeyText(rand.Reader)
	if err != nil {
		return err
	}
	defer clear(text)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return fmt.Errorf("make store key: %w", err)
	}
	if err := atomicfile.WriteFile(name, text, 0o600); err != nil {
		return fmt.Errorf("make store key: %w", err)
	}
	return nil
}

// readStoreKey refuses a file that others than its owner may read.
func readStoreKey(name string) (*keyserver.Key, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read store key: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read store key: %w", err)
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("read store key: others may read %s (mode %04o): chmod 0600 it", name, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, int64(keyserver.KeyTextSize)+1))
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("read store key: %w", err)
	}
	key, err := keyserver.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("read store key %s: %w", name, err)
	}
	return key, nil
}

// closing joins a store's closing to the error of a command's work.
func closing(store *keyserver.Store, err *error) {
	*err = errors.Join(*err, store.Close())
}
