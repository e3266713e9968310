package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// verified is what verify prints with --json.
type verified struct {
	PublicKey   string `json:"public_key"`
	Rows        int64  `json:"rows"` // up to the last row's number
	Hash        string `json:"hash"`
	First       int64  `json:"first"` // number of the first row that was looked at
	Checkpoints int    `json:"checkpoints"`
}

func (a *app) auditVerifyCommand() *cobra.Command {
	var store storeFlags
	var exports, checkpoints []string
	var publicKey string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify (--store DIR | --export FILE... --public-key KEY)",
		Short: "Verify the audit of a store, or an exported one",
		Long: `verify checks every row, the chain that holds them together, and every checkpoint; exit code 3 says that the audit does not hold, and
at which row.

With --checkpoint, the rows must be those that the checkpoint signed: so a store that was put back to an older state, cut, or replaced
is found. With --public-key, the store's key must be that one.

With --export no store and no store key is needed, but the public key (a file of it, or its text). Several exports must follow
each other.

--json prints {"public_key", "rows", "hash", "first", "checkpoints"}.`,
		Example: `  sealboot-keyserver audit verify --store keys --checkpoint keys.2026-11-26
  sealboot-keyserver audit verify --export audit.jsonl --public-key keys.pub`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if (store.location == "" && store.config == "") == (len(exports) == 0) {
				return cli.Usagef("give either --store or --export")
			}
			if len(exports) > 0 && publicKey == "" {
				return cli.Usagef("--export needs --public-key: the key that an export names itself proves nothing")
			}
			var pinned auditlog.PublicKey
			if publicKey != "" {
				if pinned, err = a.readPublicKey(publicKey); err != nil {
					return err
				}
			}
			var result verified
			if len(exports) > 0 {
				result, err = a.verifyExports(exports, checkpoints, pinned)
			} else {
				result, err = a.verifyStore(cmd, &store, checkpoints, publicKey != "", pinned)
			}
			if err != nil {
				return auditError(err)
			}
			if asJSON {
				return json.NewEncoder(a.stdout).Encode(result)
			}
			fmt.Fprintf(a.stderr, "the audit holds: rows %d to %d, %d checkpoints, %d of them kept elsewhere; last hash %s\n",
				result.First, result.Rows, result.Checkpoints+len(checkpoints), len(checkpoints), result.Hash)
			return nil
		},
	}
	store.add(cmd)
	flags := cmd.Flags()
	flags.StringArrayVar(&exports, "export", nil, "exported audit instead of a store (- for standard input)")
	flags.StringArrayVar(&checkpoints, "checkpoint", nil, "file of a checkpoint that was kept elsewhere")
	flags.StringVar(&publicKey, "public-key", "", "public key of the audit, or a file of it")
	flags.BoolVar(&asJSON, "json", false, "print what holds as JSON")
	return cmd
}

func (a *app) verifyStore(cmd *cobra.Command, f *storeFlags, checkpoints []string, pin bool, pinned auditlog.PublicKey) (v verified, err error) {
	s, err := f.open(cmd.Context())
	if err != nil {
		return verified{}, err
	}
	defer closing(s, &err)
	key := s.AuditKey()
	if pin && key.String() != pinned.String() {
		return verified{}, cli.Refusef("the store's audit has another key than --public-key: %s", key)
	}
	kept, err := a.readCheckpoints(checkpoints, key)
	if err != nil {
		return verified{}, err
	}
	v = verified{PublicKey: key.String(), First: 1, Hash: auditlog.Hash{}.String()}
	err = s.Audit(cmd.Context(), func(r keyserver.Row) error {
		v.Rows, v.Hash = r.Seq, r.Hash
		return nil
	}, kept...)
	if err != nil {
		return verified{}, err
	}
	v.Checkpoints, err = s.Checkpoints(cmd.Context())
	return v, err
}

func (a *app) verifyExports(exports, checkpoints []string, key auditlog.PublicKey) (verified, error) {
	kept, err := a.readCheckpoints(checkpoints, key)
	if err != nil {
		return verified{}, err
	}
	var files []io.Reader
	for _, name := range exports {
		f, err := a.openInput(name)
		if err != nil {
			return verified{}, err
		}
		defer f.Close()
		files = append(files, f)
	}
	s, err := key.Verify(io.MultiReader(files...), kept, func(auditlog.Row) error { return nil })
	if err != nil {
		return verified{}, err
	}
	return verified{PublicKey: key.String(), Rows: s.Last.Size, Hash: s.Last.Hash.String(), First: s.First.Size + 1, Checkpoints: s.Checkpoints}, nil
}

// readCheckpoints reads those that were kept, which must be signed by the key.
func (a *app) readCheckpoints(names []string, key auditlog.PublicKey) ([]auditlog.Checkpoint, error) {
	var kept []auditlog.Checkpoint
	for _, name := range names {
		note, err := a.readLimited(name, auditlog.MaxNote)
		if err != nil {
			return nil, err
		}
		c, err := key.Open(note)
		if err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", name, err)
		}
		kept = append(kept, c)
	}
	return kept, nil
}

// readPublicKey takes the key's text, or a file of it.
func (a *app) readPublicKey(value string) (auditlog.PublicKey, error) {
	if key, err := auditlog.ParsePublicKey(value); err == nil {
		return key, nil
	}
	text, err := a.readLimited(value, 1024)
	if err != nil {
		return auditlog.PublicKey{}, fmt.Errorf("--public-key is neither a key nor a file: %w", err)
	}
	key, err := auditlog.ParsePublicKey(strings.TrimSuffix(string(text), "\n"))
	if err != nil {
		return auditlog.PublicKey{}, fmt.Errorf("read %s: %w", value, err)
	}
	return key, nil
}

// openInput opens a file, or standard input for "-".
func (a *app) openInput(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.stdin), nil
	}
	return os.Open(name)
}
