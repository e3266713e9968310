package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/agent/receipt"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

const (
	confirmWait = 30 * time.Second // for the key server's answer
	maxReceipt  = 1024             // bytes of the file; the agent writes about 120
)

func (a *app) confirmCommand() *cobra.Command {
	var file string
	var server serverFlags
	cmd := &cobra.Command{
		Use:   "confirm --server URL",
		Short: "Tell the key server, from inside the guest, that the new passphrase opened the disk",
		Long: `confirm ends a change of the disk's passphrase. While one is under way, the key server gives out the
new passphrase and the previous one, and GRUB tries the new one first. The agent leaves a receipt
that says which one opened the disk. If it was the new one, confirm tells the key server, which then
forgets the previous one, and removes the receipt.

If it was the previous one, nothing is sent (exit code 3): the disk has no key slot for the new passphrase
yet. Without a receipt there is nothing to confirm (exit code 1).

It runs as root in the guest, where the receipt is; packaging/sealboot-confirm.service is a unit for systemd,
which asks for ConditionPathExists=/run/sealboot/receipt.`,
		Example: `  sealboot confirm --server https://keys.example --server-ca /etc/keys-ca.pem`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := server.client()
			if err != nil {
				return err
			}
			return a.confirm(cmd.Context(), keys, file)
		},
	}
	cmd.Flags().StringVar(&file, "receipt", receipt.Path, "the receipt that the agent left")
	server.add(cmd)
	return cmd
}

func (a *app) confirm(ctx context.Context, keys *client.Client, file string) error {
	note, err := readReceipt(file)
	if err != nil {
		return err
	}
	defer note.Wipe()
	if note.Used != receipt.Current {
		return cli.Refusef("the disk was opened by the previous passphrase: give it a key slot for the new one (sealboot luks add-key), then start it again")
	}
	secret := sev.DiskPassphrase
	ctx, cancel := context.WithTimeout(ctx, confirmWait)
	defer cancel()
	err = keys.Confirm(ctx, note.SessionID(), wire.ConfirmationRequest{Secret: secret, MAC: wire.ConfirmationMAC(note.Key[:], secret)})
	refused := (*client.Refused)(nil)
	switch {
	case errors.As(err, &refused) && !refused.Temporary() && refused.Class != wire.Internal:
		return cli.Refusef("confirm: %w", err)
	case err != nil:
		return fmt.Errorf("confirm: %w: the receipt is kept, run it again", err)
	}
	if err := os.Remove(file); err != nil {
		return fmt.Errorf("confirmed, but the receipt stays: %w", err)
	}
	fmt.Fprintln(a.stderr, "confirmed: from now on the key server gives out only the new passphrase")
	return nil
}

func readReceipt(file string) (*receipt.Receipt, error) {
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w: nothing to confirm: this launch came without a receipt, or it is confirmed", err)
	} else if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxReceipt))
	defer clear(text)
	if err != nil {
		return nil, fmt.Errorf("read receipt: %w", err)
	}
	note, err := receipt.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	return note, nil
}
