package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/adminclient"
)

func (a *app) backupCommand() *cobra.Command {
	var store storeFlags
	var out string
	cmd := &cobra.Command{
		Use:   "backup --store DIR --out FILE",
		Short: "Write the whole store into one file, while it serves",
		Long: `backup writes images, policies, secrets, revocations and the audit of a store, as of one moment, into
a file. Servers go on meanwhile. The file is encrypted and authenticated under the store key: keep a copy of that key apart
from it, for neither is of use without the other. Open sessions are not in it.

The file fits every kind of store: restore also moves a store from a folder to PostgreSQL, and back.`,
		Example: `  sealboot-keyserver backup --store keys --out keys.backup`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := a.exportTo(out, func(w io.Writer) error { return store.backUp(cmd.Context(), w) })
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "backup is in %s: it restores with the store key alone\n", out)
			return nil
		},
	}
	store.addServer(cmd)
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	cmd.MarkFlagRequired("out")
	return cmd
}

// backUp writes a backup of the store, or of the server's.
func (f *storeFlags) backUp(ctx context.Context, w io.Writer) (err error) {
	buffer := bufio.NewWriterSize(w, 1<<20)
	if f.remote() {
		err = f.withStream(ctx, func(ctx context.Context, c *adminclient.Client) error { return c.Backup(ctx, buffer) })
		return errors.Join(err, buffer.Flush())
	}
	s, err := f.open(ctx)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	if err := s.Backup(ctx, buffer, time.Now()); err != nil {
		return err
	}
	return buffer.Flush()
}

func (a *app) restoreCommand() *cobra.Command {
	var store storeFlags
	var in string
	cmd := &cobra.Command{
		Use:   "restore --store DIR --in FILE",
		Short: "Make a store from a backup",
		Long: `restore makes a store, where there is none, with what a backup has: all of it or nothing. It needs the
store key under which the backup was made. A file that was changed, cut off or made with another key is refused with exit
code 3, and so is a place where there is a store.

What was registered, revoked or used up after the backup is as it was before, and has to be done again. The audit goes on with a
row that says so.`,
		Example: `  sealboot-keyserver restore --store 'postgres://keys@db.example/keys' --store-key file:keys.key --in keys.backup`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, err := store.place()
			if err != nil {
				return err
			}
			key, err := readKey(cmd.Context(), p.key)
			if err != nil {
				return err
			}
			r := a.stdin
			if in != "-" {
				f, err := os.Open(in)
				if err != nil {
					return fmt.Errorf("read backup: %w", err)
				}
				defer f.Close()
				r = io.Reader(f)
			}
			err = keyserver.Restore(cmd.Context(), r, p.location, key, rand.Reader, time.Now(), p.options...)
			if errors.Is(err, keyserver.ErrBackup) || errors.Is(err, keyserver.ErrStoreThere) {
				return cli.Refusef("%v", err)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "store is restored in %s: sessions begin anew, and what was done after the backup has to be done again\n", p.location)
			return nil
		},
	}
	store.add(cmd)
	cmd.Flags().StringVar(&in, "in", "", "backup to read, - for standard input")
	cmd.MarkFlagRequired("in")
	return cmd
}
