package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver/storekey"
)

func (a *app) keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Make store keys, and move them from one place to another",
		Long: `A store key is 32 random bytes, kept outside of the store. Its place is spelled:

  file:PATH                      a file that nobody but its owner may read
  env:NAME                       an environment variable
  credential:NAME                a systemd credential
  age:PATH?identity=PATH         a file encrypted by age, and the file of the identity that opens it
  vault:https://HOST/MOUNT/KEY?file=PATH&token-file=PATH[&ca-file=PATH][&namespace=NAME]
                                 a file encrypted by Vault's transit engine

Whoever has the key and the store has the secrets, and who has lost the key has lost them: keep a copy of it, apart from the store.`,
	}
	cmd.AddCommand(a.keyNewCommand(), a.keyWrapCommand())
	return cmd
}

func (a *app) keyNewCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "new PLACE",
		Short: "Make a store key",
		Long: `new makes a key and writes it to the place's file: file:, age: or vault:. It never replaces a file. For env: and credential:,
make a file and bring it there with the place's own tools.`,
		Example: `  sealboot-keyserver key new file:/etc/sealboot/store.key
  sealboot-keyserver key new 'age:store.key.age?identity=age.identity'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := placeArgument(args[0])
			if err != nil {
				return err
			}
			if err := newKey(cmd.Context(), spec); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "store key is in %s: keep a copy of it apart from the store\n", spec.Path)
			return nil
		},
	}
}

func (a *app) keyWrapCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "wrap FROM TO",
		Short: "Put a store key into another place",
		Long: `wrap reads the key at one place and writes it to the file of another, which must not be there: from file: into age: or
vault:, from one age identity to another, or back into file:. The key stays the same, and so do its stores. The old place is left as it is.`,
		Example: `  sealboot-keyserver key wrap file:keys.key 'vault:https://vault.example.org:8200/transit/sealboot?file=keys.vault&token-file=token'`,
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			from, err := placeArgument(args[0])
			if err != nil {
				return err
			}
			to, err := placeArgument(args[1])
			if err != nil {
				return err
			}
			raw, err := readRawKey(cmd.Context(), from)
			if err != nil {
				return err
			}
			defer clear(raw)
			if err := putKey(cmd.Context(), to, raw); err != nil {
				return err
			}
			fmt.Fprintf(a.stderr, "store key is in %s\n", to.Path)
			return nil
		},
	}
}

func placeArgument(text string) (storekey.Spec, error) {
	spec, err := storekey.Parse(text)
	if err != nil {
		return storekey.Spec{}, cli.Usagef("%w", err)
	}
	return spec, nil
}
