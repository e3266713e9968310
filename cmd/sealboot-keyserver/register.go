package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// registerFlags are the flags of register.
type registerFlags struct {
	store                         storeFlags
	record, keyFile, name, policy string
	minAPI                        string
	es, replace, asJSON           bool
	secrets                       []string
}

func (a *app) registerCommand() *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register --record FILE --key-file FILE [--name NAME] --store DIR",
		Short: "Put an image and its secrets into the store",
		Long: `register takes a boot record and the disk's passphrase, and from then on the key server
releases that passphrase to machines whose launch measurement fits the record, once per launch. --secret
adds others, under the GUIDs by which the guest finds them.

Without --policy the guest policy forbids debugging, key sharing and sending the guest away, and there is no other
restriction; --require-es asks for SEV-ES as well, for which the record needs digests of mode seves. "policy default"
prints such a policy, to be changed and given as --policy.

With --replace this is the image's next version. It keeps the secrets that are not given again; the
passphrase too, without --key-file, if the disk is the same.

The store and its key are made when they are not there. A running server sees the image at once.

--json prints {"name", "version", "mode", "digests"} on standard output: the mode of the policy's first way in, and the
number of the record's digests that the policy takes.`,
		Example: `  sealboot-keyserver register --record web1/record.json --key-file web1/passphrase --name web --store keys
  sealboot-keyserver register --record web2/record.json --name web --store keys --replace --policy web.json \
    --secret 8a8a4b0e-7d7b-4c5a-9f0e-0d8d5b7a1c11=tls.key`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, wipe, err := a.registration(f)
			defer wipe()
			if err != nil {
				return err
			}
			if err := r.Validate(); err != nil { // before a store is made for nothing
				return registerError(err)
			}
			return f.store.withNew(cmd.Context(), func(s keeper) error {
				version, err := s.Register(cmd.Context(), r, time.Now())
				if err != nil {
					return registerError(err)
				}
				return a.registered(r, version, f.asJSON)
			})
		},
	}
	f.store.addServer(cmd)
	flags := cmd.Flags()
	flags.StringVar(&f.record, "record", "", "boot record of the image (record.json)")
	flags.StringVar(&f.keyFile, "key-file", "", "file that holds the disk's passphrase, - for standard input")
	flags.StringVar(&f.name, "name", "", "name that hosts ask for (default: the disk's UUID)")
	flags.StringVar(&f.policy, "policy", "", "file of the image's policy (JSON), - for standard input")
	flags.StringArrayVar(&f.secrets, "secret", nil, "one more secret: GUID=FILE")
	flags.BoolVar(&f.es, "require-es", false, "ask for SEV-ES: the guest's registers are encrypted too")
	flags.StringVar(&f.minAPI, "min-api", "", "oldest SEV firmware to trust, MAJOR.MINOR or MAJOR.MINOR.BUILD")
	flags.BoolVar(&f.replace, "replace", false, "the name may be taken: this is the image's next version")
	flags.BoolVar(&f.asJSON, "json", false, "print what was registered as JSON")
	cmd.MarkFlagsMutuallyExclusive("policy", "require-es")
	cmd.MarkFlagsMutuallyExclusive("policy", "min-api")
	return cmd
}

// registration reads what the flags name. wipe clears the secrets of it.
func (a *app) registration(f registerFlags) (r keyserver.Registration, wipe func(), err error) {
	wipe = func() {
		clear(r.Passphrase)
		for _, s := range r.Secrets {
			clear(s.Data)
		}
	}
	if f.record == "" {
		return r, wipe, cli.Usagef("no boot record: give --record FILE")
	}
	r.Name, r.Replace = f.name, f.replace
	if f.policy != "" {
		r.Policy, err = a.readPolicy(f.policy)
	} else {
		r.Policy, err = policyOf(f.es, f.minAPI)
	}
	if err != nil {
		return r, wipe, err
	}
	if r.Record, err = cli.ReadRecord(f.record); err != nil {
		return r, wipe, err
	}
	if r.Name == "" {
		r.Name = r.Record.Disk.UUID
	}
	if f.keyFile != "" || !f.replace {
		if r.Passphrase, err = cli.ReadKeyFile(f.keyFile, a.stdin); err != nil {
			return r, wipe, err
		}
	}
	for _, pair := range f.secrets {
		text, file, ok := strings.Cut(pair, "=")
		if !ok {
			return r, wipe, cli.Usagef("--secret takes GUID=FILE")
		}
		id, err := secretID(text)
		if err != nil {
			return r, wipe, err
		}
		data, err := a.readSecret(file)
		if err != nil {
			return r, wipe, err
		}
		r.Secrets = append(r.Secrets, keyserver.Secret{ID: id, Data: data})
	}
	return r, wipe, nil
}

// registered says what the store has now.
func (a *app) registered(r keyserver.Registration, version int64, asJSON bool) error {
	total, text, first := 0, "", measure.Mode("")
	for _, way := range r.Policy.Modes() {
		n := 0
		for _, d := range r.Record.Digests {
			for _, mode := range way {
				if d.Mode == mode {
					n++
				}
			}
		}
		if first == "" {
			first = way[0]
		} else {
			text += " and "
		}
		text += fmt.Sprintf("%d digests of mode %s", n, way[0])
		total += n
	}
	if r.Policy.SEV != nil {
		text += fmt.Sprintf(", policy %v", r.Policy.SEV.Session())
	}
	fmt.Fprintf(a.stderr, "registered image %s, version %d: %s\n", r.Name, version, text)
	if !asJSON {
		return nil
	}
	return a.printJSON(struct {
		Name    string       `json:"name"`
		Version int64        `json:"version"`
		Mode    measure.Mode `json:"mode"`
		Digests int          `json:"digests"`
	}{r.Name, version, first, total})
}

// secretID reads a secret's GUID. The word passphrase stands for the disk passphrase's.
func secretID(text string) (guid.GUID, error) {
	if text == "passphrase" {
		return sev.DiskPassphrase, nil
	}
	id, err := guid.Parse(text)
	if err != nil {
		return guid.GUID{}, cli.Usagef("%q is neither a GUID nor the word passphrase", text)
	}
	return id, nil
}

// readSecret reads a secret's exact bytes.
func (a *app) readSecret(name string) ([]byte, error) {
	in := a.stdin
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("read secret: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, sev.MaxSecret+1))
	switch {
	case err != nil:
		clear(data)
		return nil, fmt.Errorf("read secret: %w", err)
	case len(data) == 0:
		return nil, fmt.Errorf("read secret: %s is empty", name)
	case len(data) > sev.MaxSecret:
		clear(data)
		return nil, fmt.Errorf("read secret: %s has more than %d bytes, which no guest's secret area takes", name, sev.MaxSecret)
	}
	return data, nil
}

func policyOf(es bool, minAPI string) (keyserver.Policy, error) {
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
		return cli.Refusef("%s: --replace makes this its next version", text)
	case errors.Is(err, keyserver.ErrNoDigest):
		text += ": without --require-es it is sev, with it seves; sealboot measure --record adds digests"
	case errors.Is(err, sev.ErrTableTooLarge):
		text += ": use shorter secrets or a firmware with a larger secret area"
	}
	return errors.New(text)
}
