package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/sev"
)

// readCertificateFiles reads files of certificates, in any order and division.
func readCertificateFiles(names []string) (sev.Certificates, error) {
	var all sev.Certificates
	for _, name := range names {
		data, err := cli.ReadBounded(name, 2*sev.MaxCertificates)
		if err != nil {
			return sev.Certificates{}, err
		}
		c, err := sev.ParseCertificates(data)
		if err != nil {
			return sev.Certificates{}, fmt.Errorf("read %s: %w", name, err)
		}
		all.Add(c)
	}
	return all, nil
}

// trustedChain puts the files' certificates together and follows them to a trusted root. A chain
// that is whole and not to be trusted is a clear no.
func trustedChain(names, trustRoots []string) (chain sev.Chain, product string, root sev.RootDigest, err error) {
	none := sev.RootDigest{}
	roots, err := cli.TrustedRoots(trustRoots)
	if err != nil {
		return sev.Chain{}, "", none, err
	}
	certs, err := readCertificateFiles(names)
	if err != nil {
		return sev.Chain{}, "", none, err
	}
	if chain, err = certs.Chain(); err != nil {
		return sev.Chain{}, "", none, fmt.Errorf("%w%s", err, chainHint(err))
	}
	if product, err = chain.Verify(roots); err != nil {
		if format := (*sev.FormatError)(nil); errors.As(err, &format) {
			return sev.Chain{}, "", none, err
		}
		return sev.Chain{}, "", none, refusef("%w%s", err, chainHint(err))
	}
	if root, err = chain.ARK.KeyDigest(); err != nil {
		return sev.Chain{}, "", none, err
	}
	return chain, product, root, nil
}

// chainHint says what to do next, where that is known.
func chainHint(err error) string {
	switch {
	case errors.Is(err, sev.ErrMissing):
		return ": ASK and ARK come from AMD's site for the product, the others from the platform (QMP query-sev-capabilities, sevctl export)"
	case errors.Is(err, sev.ErrUnsigned):
		return ": a platform's own CEK lacks AMD's signature: add the one from AMD's key service (sevctl export has it)"
	case errors.Is(err, sev.ErrUntrustedRoot):
		return ": it is none of AMD's; --trust-root trusts one more"
	}
	return ""
}

func (a *app) sevCertsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "certs", Short: "Look at the certificates of a platform"}
	cmd.AddCommand(a.sevCertsVerifyCommand(), a.sevCertsShowCommand())
	return cmd
}

func (a *app) sevCertsVerifyCommand() *cobra.Command {
	var trustRoots []string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify FILE...",
		Short: "Follow a platform's certificates up to AMD's roots",
		Long: `verify takes the whole chain (PDH, PEK, OCA, CEK, ASK, ARK) from any number of files, one
certificate or many in each, in any order, and follows every signature from a trusted root down to the
PDH. AMD's root keys of Naples, Rome, Milan, Genoa and Turin are known.

Exit code 3: the chain is not to be trusted. --json prints {"trusted", "product", "root"} or, for
a chain that is not, {"trusted", "why"}; root is the SHA-256 of the root's public key.`,
		Example: `  sealboot sev certs verify sev.full.cert
  sealboot sev certs verify pdh.cert cert_chain.cert ask_ark.cert --json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			_, product, root, err := trustedChain(files, trustRoots)
			if refusal := (*cli.ExitError)(nil); asJSON && errors.As(err, &refusal) && refusal.Code == cli.ExitNo {
				return errors.Join(a.printJSON(map[string]any{"trusted": false, "why": refusal.Error()}), err)
			}
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(struct {
					Trusted bool   `json:"trusted"`
					Product string `json:"product"`
					Root    string `json:"root"`
				}{true, product, root.String()})
			}
			_, err = fmt.Fprintf(a.stdout, "trusted: %s, root %v\n", product, root)
			return err
		},
	}
	cmd.Flags().StringArrayVar(&trustRoots, "trust-root", nil, trustRootHelp)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the answer as JSON")
	return cmd
}

const trustRootHelp = "trust one more root beside AMD's: SHA-256 of its public key in hex, or a file with that, an ARK, or ASK and ARK"

// shownCertificate is a certificate as show prints it: a documented interface.
type shownCertificate struct {
	Usage     string   `json:"usage"`
	Algorithm string   `json:"algorithm"`
	Key       string   `json:"key"` // SHA-256 of the public key
	API       string   `json:"api,omitempty"`
	SignedBy  []string `json:"signed_by"` // usages of the keys that the signatures name
}

func (a *app) sevCertsShowCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show FILE...",
		Short: "Show certificates, without verifying them",
		Long: `show lists the certificates in files, in their order: usage, algorithm, SHA-256 of the public key
(DER SubjectPublicKeyInfo), the platform's API, and which keys the signatures name. Nothing of it is
verified: see sealboot sev certs verify.

--json prints a list of {"usage", "algorithm", "key", "api", "signed_by"}.`,
		Example: `  sealboot sev certs show sev.cert`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, files []string) error {
			certs, err := readCertificateFiles(files)
			if err != nil {
				return err
			}
			shown, err := showCertificates(certs)
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(shown)
			}
			for _, s := range shown {
				if s.API != "" {
					s.API = " api " + s.API
				}
				if _, err := fmt.Fprintf(a.stdout, "%-4s %-13s %s%s signed by %s\n", s.Usage, s.Algorithm, s.Key, s.API, orNobody(s.SignedBy)); err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the list as JSON")
	return cmd
}

func orNobody(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}

func showCertificates(certs sev.Certificates) ([]shownCertificate, error) {
	out := []shownCertificate{}
	for _, c := range certs.SEV {
		key, err := c.KeyDigest()
		if err != nil {
			return nil, err
		}
		s := shownCertificate{c.Usage.String(), c.Algorithm.String(), key.String(), fmt.Sprintf("%d.%d", c.APIMajor, c.APIMinor), []string{}}
		for _, by := range c.Signatures {
			if by.Usage != sev.UsageNone {
				s.SignedBy = append(s.SignedBy, by.Usage.String())
			}
		}
		out = append(out, s)
	}
	for _, c := range certs.CA {
		key, err := c.KeyDigest()
		if err != nil {
			return nil, err
		}
		s := shownCertificate{c.Usage.String(), fmt.Sprintf("RSA-%d", 8*len(c.Modulus)), key.String(), "", []string{}}
		if !bytes.Equal(c.Signature, make([]byte, len(c.Signature))) { // Naples' ARK was published so
			s.SignedBy = append(s.SignedBy, sev.UsageARK.String())
		}
		out = append(out, s)
	}
	return out, nil
}

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
