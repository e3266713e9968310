package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

func (a *app) registerCommand() *cobra.Command {
	var store storeFlags
	var record, keyFile, name, minAPI string
	var es, replace, asJSON bool
	cmd := &cobra.Command{
		Use:   "register --record FILE --key-file FILE [--name NAME] --store DIR",
		Short: "Put an image and its passphrase into the store",
		Long: `register takes a boot record and the disk's passphrase, and from then on the key server
releases that passphrase to machines whose launch measurement fits the record, once per launch.

The guest policy always forbids debugging, key sharing and sending the guest away; --require-es
asks for SEV-ES as well, for which the record needs digests of mode seves. The store and its key are
made when they are not there. A running server sees the image at once.

--json prints {"name", "version", "mode", "digests"} on standard output.`,
		Example: `  sealboot-keyserver register --record out/record.json --key-file out/passphrase --name web --store keys`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if record == "" {
				return cli.Usagef("no boot record: give --record FILE")
			}
			policy, err := registerPolicy(es, minAPI)
			if err != nil {
				return err
			}
			r, err := cli.ReadRecord(record)
			if err != nil {
				return err
			}
			passphrase, err := cli.ReadKeyFile(keyFile, a.stdin)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			if name == "" {
				name = r.Disk.UUID
			}
			registration := keyserver.Registration{Name: name, Record: r, Policy: policy, Passphrase: passphrase, Replace: replace}
			if err := registration.Validate(); err != nil { // before a store is made for nothing
				return registerError(err)
			}
			s, err := store.openOrMake(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			version, err := s.Register(cmd.Context(), registration, time.Now())
			if err != nil {
				return registerError(err)
			}
			digests := 0
			for _, d := range r.Digests {
				if d.Mode == policy.SEV.Mode() {
					digests++
				}
			}
			fmt.Fprintf(a.stderr, "registered image %s, version %d: %d digests of mode %s, policy %v\n", name, version, digests, policy.SEV.Mode(), policy.SEV.Session())
			if asJSON {
				return json.NewEncoder(a.stdout).Encode(struct {
					Name    string       `json:"name"`
					Version int64        `json:"version"`
					Mode    measure.Mode `json:"mode"`
					Digests int          `json:"digests"`
				}{name, version, policy.SEV.Mode(), digests})
			}
			return nil
		},
	}
	store.add(cmd)
	f := cmd.Flags()
	f.StringVar(&record, "record", "", "boot record of the image (record.json)")
	f.StringVar(&keyFile, "key-file", "", "file that holds the disk's passphrase, - for standard input")
	f.StringVar(&name, "name", "", "name that hosts ask for (default: the disk's UUID)")
	f.BoolVar(&es, "require-es", false, "ask for SEV-ES: the guest's registers are encrypted too")
	f.StringVar(&minAPI, "min-api", "", "oldest SEV firmware to trust, MAJOR.MINOR or MAJOR.MINOR.BUILD")
	f.BoolVar(&replace, "replace", false, "the name may be taken: this is the image's next version")
	f.BoolVar(&asJSON, "json", false, "print what was registered as JSON")
	return cmd
}

func registerPolicy(es bool, minAPI string) (keyserver.Policy, error) {
	policy := keyserver.DefaultPolicy()
	if es {
		policy.SEV.Guest |= sev.ES
	}
	if minAPI != "" {
		api, err := parseAPI(minAPI)
		if err != nil {
			return keyserver.Policy{}, err
		}
		policy.SEV.MinAPI = keyserver.Only(api)
	}
	return policy, nil
}

func parseAPI(s string) (sev.API, error) {
	var numbers [3]uint8
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > 3 {
		return sev.API{}, cli.Usagef("--min-api %q is not MAJOR.MINOR or MAJOR.MINOR.BUILD", s)
	}
	for i, part := range parts {
		n, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return sev.API{}, cli.Usagef("--min-api %q is not MAJOR.MINOR or MAJOR.MINOR.BUILD, each up to 255", s)
		}
		numbers[i] = uint8(n)
	}
	return sev.API{Major: numbers[0], Minor: numbers[1], Build: numbers[2]}, nil
}

// registerError says what to do next, where that is known.
func registerError(err error) error {
	text := cli.OneLine(err)
	switch {
	case errors.Is(err, keyserver.ErrImageThere):
		text += ": --replace makes this its next version"
	case errors.Is(err, keyserver.ErrNoDigest):
		text += ": without --require-es it is sev, with it seves; sealboot measure --record adds digests"
	case errors.Is(err, sev.ErrTableTooLarge):
		text += ": use a shorter passphrase or a firmware with a larger secret area"
	}
	if errors.Is(err, keyserver.ErrImageThere) {
		return cli.Refusef("%s", text)
	}
	return errors.New(text)
}
