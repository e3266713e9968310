package main

import (
	"crypto/rand"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/luks"
)

func (a *app) luksOpenCommand() *cobra.Command {
	var keyFile string
	var offset cli.ByteSize
	cmd := &cobra.Command{
		Use:   "open FILE --key-file FILE",
		Short: "Say which key slot a passphrase opens",
		Long: `Try a passphrase on the key slots of a disk, and print the number of the one that it opens. Exit code 3
if it opens none. Nothing is mapped or mounted.`,
		Example: "  sealboot luks open disk --key-file passphrase",
		Args:    cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			f, h, err := a.openHeader(args[0], offset, false)
			if err != nil {
				return err
			}
			defer f.Close()
			slot, key, err := h.Unlock(passphrase)
			if err != nil {
				return luksErr(args[0], err)
			}
			key.Wipe()
			fmt.Fprintf(a.stdout, "key slot %d\n", slot)
			return nil
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with the passphrase, - for standard input")
	offset.AddOffset(cmd)
	return cmd
}

func (a *app) luksAddKeyCommand() *cobra.Command {
	return a.luksNewKeyCommand(&cobra.Command{
		Use:   "add-key FILE --key-file FILE --new-key-file FILE",
		Short: "Let another passphrase open a disk",
		Long: `Put a disk's volume key into a free key slot, under a new passphrase. --key-file holds one that
opens the disk now. The number of the new slot is printed.`,
		Example: "  sealboot luks add-key disk --key-file old --new-key-file new",
	}, (*luks.Header).AddKey)
}

func (a *app) luksChangeKeyCommand() *cobra.Command {
	return a.luksNewKeyCommand(&cobra.Command{
		Use:   "change-key FILE --key-file FILE --new-key-file FILE",
		Short: "Replace a passphrase of a disk",
		Long: `Replace the passphrase in --key-file by the one in --new-key-file. The key slot keeps its number,
which is printed. The old slot's place is overwritten, but snapshots, backups and flash storage may keep it.`,
		Example: "  sealboot luks change-key disk --key-file old --new-key-file new",
	}, (*luks.Header).ChangeKey)
}

// luksNewKeyCommand completes a command that puts a new passphrase into a header.
func (a *app) luksNewKeyCommand(cmd *cobra.Command, change changeFunc) *cobra.Command {
	var (
		keyFile, newKeyFile string
		offset              cli.ByteSize
		kdf                 kdfFlags
	)
	cmd.Args = cobra.ExactArgs(1)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		if keyFile == "-" && newKeyFile == "-" {
			return cli.Usagef("only one passphrase can come from standard input")
		}
		if newKeyFile == "" {
			return cli.Usagef("no new passphrase: give --new-key-file FILE, or - for standard input")
		}
		passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
		if err != nil {
			return err
		}
		defer clear(passphrase)
		added, err := cli.ReadKeyFile(newKeyFile, a.stdin)
		if err != nil {
			return err
		}
		defer clear(added)
		chosen, err := kdf.choose(added)
		if err != nil {
			return err
		}
		if err := chosen.Validate(); err != nil {
			return cli.Usagef("%w", err)
		}
		f, h, err := a.openHeader(args[0], offset, true)
		if err != nil {
			return err
		}
		defer f.Close()
		slot, err := change(h, f, passphrase, added, chosen, rand.Reader)
		if err != nil {
			return luksErr(args[0], err)
		}
		fmt.Fprintf(a.stdout, "key slot %d\n", slot)
		return nil
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with a passphrase that opens the disk, - for standard input")
	cmd.Flags().StringVar(&newKeyFile, "new-key-file", "", "file with the new passphrase, - for standard input")
	offset.AddOffset(cmd)
	kdf.addTo(cmd)
	return cmd
}

// changeFunc is AddKey or ChangeKey.
type changeFunc = func(*luks.Header, luks.Disk, []byte, []byte, luks.KDF, io.Reader) (int, error)

func (a *app) luksRemoveKeyCommand() *cobra.Command {
	var keyFile string
	var offset cli.ByteSize
	slot := -1
	cmd := &cobra.Command{
		Use:   "remove-key FILE --key-file FILE",
		Short: "Take a passphrase away from a disk",
		Long: `Remove the key slot that a passphrase opens, or with --slot another one, and print its number. The
last key slot is refused (exit code 3): without it nothing opens the disk any more.`,
		Example: `  sealboot luks remove-key disk --key-file old
  sealboot luks remove-key disk --key-file mine --slot 3`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			f, h, err := a.openHeader(args[0], offset, true)
			if err != nil {
				return err
			}
			defer f.Close()
			opened, key, err := h.Unlock(passphrase)
			if err != nil {
				return luksErr(args[0], err)
			}
			key.Wipe()
			if !cmd.Flags().Changed("slot") {
				slot = opened
			}
			if err := h.RemoveSlot(f, slot, rand.Reader); err != nil {
				return luksErr(args[0], err)
			}
			fmt.Fprintf(a.stdout, "key slot %d\n", slot)
			return nil
		},
	}
	cmd.Flags().StringVar(&keyFile, "key-file", "", "file with the passphrase, - for standard input")
	cmd.Flags().IntVar(&slot, "slot", -1, "remove this key slot instead; the passphrase opens any")
	offset.AddOffset(cmd)
	return cmd
}
