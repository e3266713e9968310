package main

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/sev"
)

type sessionFlags struct {
	pdh, certChain, ca []string
	trustRoots         []string
	policy             string
	output             string
	name               string
	format             string
	asJSON             bool
}

func (a *app) sevSessionCommand() *cobra.Command {
	var f sessionFlags
	cmd := &cobra.Command{
		Use:   "session --pdh FILE --cert-chain FILE --ca FILE --policy POLICY --output DIR",
		Short: "Make a launch session for a platform",
		Long: `session verifies a platform's certificates up to AMD's roots, and makes what QEMU launches the guest
with there: the owner's Diffie-Hellman certificate and the session, and, for the owner alone, the keys
TIK and TEK (0600). A session is for one launch: make a new one for each.

--format sevctl writes NAME_godh.b64, NAME_session.b64 (base64, as QEMU and libvirt take them),
NAME_tik.bin and NAME_tek.bin; --format sev-tool writes godh.cert, launch_blob.bin and tmp_tk.bin.
The policy is a number (0x0b) or the names of its bits: nodbg, noks, es, nosend, domain, sev.

Exit code 3: the platform is not to be trusted; no file is made. --json prints {"product", "policy",
"godh", "session", "tik", "tek"} or, instead of the last two, {"tk"}: the names of the files.`,
		Example: `  sealboot sev session --pdh pdh --cert-chain chain --ca ask_ark.cert --policy nodbg,noks,nosend --output launch
  sealboot sev session --cert-chain sev.full.cert --policy 0x0b --output launch --name web`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.sevSession(f) },
	}
	flags := cmd.Flags()
	flags.StringArrayVar(&f.pdh, "pdh", nil, "file with the platform's PDH")
	flags.StringArrayVar(&f.certChain, "cert-chain", nil, "file with PEK, OCA and CEK, or any part of the chain; may be repeated")
	flags.StringArrayVar(&f.ca, "ca", nil, "file with AMD's ASK and ARK; may be repeated")
	flags.StringArrayVar(&f.trustRoots, "trust-root", nil, trustRootHelp)
	flags.StringVar(&f.policy, "policy", "", "the guest's policy")
	flags.StringVar(&f.output, "output", "", "folder for the files; made 0700 if it is not there")
	flags.StringVar(&f.name, "name", "vm", "beginning of the files' names (--format sevctl)")
	flags.StringVar(&f.format, "format", "sevctl", "files to write: "+strings.Join(sessionFormats, " or "))
	flags.BoolVar(&f.asJSON, "json", false, "print the files' names as JSON")
	cmd.MarkFlagRequired("policy")
	cmd.MarkFlagRequired("output")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(sessionFormats, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

var sessionFormats = []string{"sevctl", "sev-tool"}

func (a *app) sevSession(f sessionFlags) error {
	policy, err := sev.ParsePolicy(f.policy)
	if err != nil {
		return usagef("--%v", err)
	}
	files := slices.Concat(f.pdh, f.certChain, f.ca)
	switch {
	case len(files) == 0:
		return usagef("no certificates: give --pdh, --cert-chain and --ca")
	case !slices.Contains(sessionFormats, f.format):
		return usagef("unknown format %q: %s", f.format, strings.Join(sessionFormats, " or "))
	case f.name == "" || f.name != filepath.Base(f.name) || strings.HasPrefix(f.name, "."):
		return usagef("--name %q is not the beginning of a file's name", f.name)
	}
	chain, product, _, err := trustedChain(files, f.trustRoots)
	if err != nil {
		return err
	}
	session, start, err := sev.NewSession(chain.PDH, policy, rand.Reader)
	if err != nil {
		return err
	}
	defer session.Wipe()
	if !policy.Has(sev.NoDebug) {
		fmt.Fprintf(a.stderr, "warning: policy %v lets the host read the guest's memory (nodbg is not set)\n", policy)
	}
	outputs := f.files(session, start)
	if err := writeNew(f.output, outputs); err != nil {
		return err
	}
	names := map[string]string{"product": product, "policy": fmt.Sprintf("%#x", uint32(policy))}
	for _, o := range outputs {
		names[o.what] = filepath.Join(f.output, o.name)
	}
	fmt.Fprintf(a.stderr, "session for a %s platform, policy %v, in %s\n", product, policy, f.output)
	if f.asJSON {
		return a.printJSON(names)
	}
	return nil
}

// sessionFile is one output; what QEMU reads, perhaps as another user, is no secret.
type sessionFile struct {
	what, name string
	data       []byte
	perm       os.FileMode
}

func (f sessionFlags) files(s *sev.Session, start sev.LaunchStart) []sessionFile {
	if f.format == "sev-tool" {
		return []sessionFile{
			{"tk", "tmp_tk.bin", slices.Concat(s.TEK[:], s.TIK[:]), 0o600},
			{"godh", "godh.cert", start.GODH[:], 0o644},
			{"session", "launch_blob.bin", start.Session[:], 0o644},
		}
	}
	text := func(b []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(b)) }
	return []sessionFile{
		{"tik", f.name + "_tik.bin", s.TIK[:], 0o600},
		{"tek", f.name + "_tek.bin", s.TEK[:], 0o600},
		{"godh", f.name + "_godh.b64", text(start.GODH[:]), 0o644},
		{"session", f.name + "_session.b64", text(start.Session[:]), 0o644},
	}
}

// writeNew writes all the files or none. It replaces none: the keys of a launch under way would be lost.
func writeNew(dir string, files []sessionFile) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		if _, err := os.Lstat(name); err == nil {
			return fmt.Errorf("%s is there: a session is for one launch; choose another --output or --name", name)
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	var written []string
	defer func() {
		for _, f := range files {
			clear(f.data)
		}
		if err != nil {
			for _, name := range written {
				os.Remove(name)
			}
		}
	}()
	for _, f := range files {
		name := filepath.Join(dir, f.name)
		if err := atomicfile.WriteFile(name, f.data, f.perm); err != nil {
			return err
		}
		written = append(written, name)
	}
	return nil
}
