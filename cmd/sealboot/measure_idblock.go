package main

import (
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/measure/idblock"
)

// idblockFacts are what --json shows.
type idblockFacts struct {
	Measurement     string `json:"measurement"`
	FamilyID        string `json:"family_id"`
	ImageID         string `json:"image_id"`
	GuestSVN        uint32 `json:"guest_svn"`
	Policy          uint64 `json:"policy"`
	IDKeyDigest     string `json:"id_key_digest"`
	AuthorKeyDigest string `json:"author_key_digest,omitempty"`
	IDBlock         string `json:"id_block"`
	IDAuth          string `json:"id_auth"`
}

func (a *app) measureIDBlockCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "idblock",
		Short: "Make and check SEV-SNP's ID block and authentication block",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return usagef("idblock: one of make, verify") },
	}
	cmd.AddCommand(a.idblockMakeCommand(), a.idblockVerifyCommand())
	return cmd
}

func (a *app) idblockMakeCommand() *cobra.Command {
	var measurement, idKey, authorKey, family, image, blockFile, authFile string
	var svn uint32
	var policy uint64
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "make --measurement DIGEST --idkey FILE",
		Short: "Sign a launch digest and a policy for SEV-SNP",
		Long: `make prints what QEMU's sev-snp-guest takes, id-block=BASE64,id-auth=BASE64, and the digests of the keys
that attestation reports then hold, in base64: the form of snp-create-id-block. With an author key QEMU also needs
author-key-enabled=on, and its policy= must be the one signed here. --block-file and --auth-file write each in base64, as snpguest does.

JSON fields: measurement, family_id, image_id, guest_svn, policy, id_key_digest, author_key_digest (hexadecimal), id_block, id_auth (base64).`,
		Example: `  openssl ecparam -name secp384r1 -genkey -noout -out id.pem
  sealboot measure idblock make --measurement HEX --idkey id.pem --authorkey author.pem > idblock.txt`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			b := idblock.Block{GuestSVN: svn, Policy: policy}
			if !decodeInto(b.Digest[:], measurement) {
				return usagef("--measurement: %d bytes in hexadecimal or base64", len(b.Digest))
			}
			if family != "" && !decodeInto(b.FamilyID[:], family) || image != "" && !decodeInto(b.ImageID[:], image) {
				return usagef("--family-id and --image-id: %d bytes in hexadecimal or base64", len(b.FamilyID))
			}
			if err := b.Validate(); err != nil {
				return usagef("%v", err)
			}
			id, err := readIDKey(idKey)
			if err != nil {
				return err
			}
			var author *ecdsa.PrivateKey
			if authorKey != "" {
				if author, err = readIDKey(authorKey); err != nil {
					return err
				}
			}
			auth, err := idblock.Sign(b, id, author)
			if err != nil {
				return err
			}
			facts, err := newIDBlockFacts(b, auth)
			if err != nil {
				return err
			}
			for name, text := range map[string]string{blockFile: facts.IDBlock, authFile: facts.IDAuth} {
				if name == "" {
					continue
				}
				if err := atomicfile.WriteFile(name, []byte(text+"\n"), 0o644); err != nil {
					return err
				}
			}
			return a.printIDBlock(b, auth, facts, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&measurement, "measurement", "", "launch digest, in hexadecimal or base64")
	flags.StringVar(&idKey, "idkey", "", "ID key: private P-384 key in PEM")
	flags.StringVar(&authorKey, "authorkey", "", "author key: private P-384 key in PEM, to vouch for the ID key")
	flags.StringVar(&family, "family-id", "", "16 bytes that reports give back")
	flags.StringVar(&image, "image-id", "", "16 bytes that reports give back")
	flags.Uint32Var(&svn, "guest-svn", 0, "security version of the guest")
	flags.Uint64Var(&policy, "policy", idblock.DefaultPolicy, "guest policy")
	flags.StringVar(&blockFile, "block-file", "", "write the ID block here too, in base64")
	flags.StringVar(&authFile, "auth-file", "", "write the authentication block here too, in base64")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagRequired("measurement")
	cmd.MarkFlagRequired("idkey")
	return cmd
}

func (a *app) idblockVerifyCommand() *cobra.Command {
	var blockFile, authFile, measurement, idDigest, authorDigest string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify {FILE | --block-file FILE --auth-file FILE}",
		Short: "Check the signatures of an ID block",
		Long: `verify reads what "make" or snp-create-id-block printed (- is stdin), or the two blocks in base64 or as they are,
checks both signatures and prints what was signed and by which keys. Whose keys they are shows in their digests alone: give
--id-key-digest or --author-key-digest to have them compared. The exit code is 3 when anything does not fit.

JSON fields are those of "make".`,
		Example: `  sealboot measure idblock verify idblock.txt --measurement HEX --id-key-digest HEX`,
		Args:    cobra.MaximumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if (len(args) == 1) == (blockFile != "" || authFile != "") || (blockFile == "") != (authFile == "") {
				return usagef("give one FILE, or --block-file and --auth-file")
			}
			var b idblock.Block
			var auth *idblock.Auth
			var err error
			if len(args) == 1 {
				b, auth, err = a.readIDBlockText(args[0])
			} else {
				b, auth, err = readIDBlockFiles(blockFile, authFile)
			}
			if err != nil {
				return err
			}
			if err := auth.Verify(b); errors.Is(err, idblock.ErrSignature) {
				return refusef("%w", err)
			} else if err != nil {
				return err
			}
			facts, err := newIDBlockFacts(b, auth)
			if err != nil {
				return err
			}
			for _, want := range []struct{ flag, given, got string }{
				{"measurement", measurement, facts.Measurement}, {"id-key-digest", idDigest, facts.IDKeyDigest}, {"author-key-digest", authorDigest, facts.AuthorKeyDigest},
			} {
				if want.given == "" {
					continue
				}
				var digest [48]byte
				if !decodeInto(digest[:], want.given) {
					return usagef("--%s: %d bytes in hexadecimal or base64", want.flag, len(digest))
				}
				if hex.EncodeToString(digest[:]) != want.got {
					return refusef("--%s: the blocks have %q", want.flag, want.got)
				}
			}
			return a.printIDBlock(b, auth, facts, asJSON)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&blockFile, "block-file", "", "ID block, in base64 or as it is")
	flags.StringVar(&authFile, "auth-file", "", "authentication block, in base64 or as it is")
	flags.StringVar(&measurement, "measurement", "", "launch digest that must be in it")
	flags.StringVar(&idDigest, "id-key-digest", "", "digest of the ID key that must be in it")
	flags.StringVar(&authorDigest, "author-key-digest", "", "digest of the author key that must be in it")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (a *app) printIDBlock(b idblock.Block, auth *idblock.Auth, facts *idblockFacts, asJSON bool) error {
	if asJSON {
		e := json.NewEncoder(a.stdout)
		e.SetIndent("", "  ")
		return e.Encode(facts)
	}
	text, err := idblock.Text(b, auth)
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.stdout, text)
	return err
}

func newIDBlockFacts(b idblock.Block, auth *idblock.Auth) (*idblockFacts, error) {
	block, err := b.Encode()
	if err != nil {
		return nil, err
	}
	id, err := idblock.KeyDigest(auth.IDKey)
	if err != nil {
		return nil, err
	}
	f := &idblockFacts{
		Measurement: hex.EncodeToString(b.Digest[:]), FamilyID: hex.EncodeToString(b.FamilyID[:]), ImageID: hex.EncodeToString(b.ImageID[:]),
		GuestSVN: b.GuestSVN, Policy: b.Policy, IDKeyDigest: hex.EncodeToString(id[:]),
		IDBlock: base64.StdEncoding.EncodeToString(block), IDAuth: base64.StdEncoding.EncodeToString(auth.Encode()),
	}
	if auth.AuthorKey != nil {
		author, err := idblock.KeyDigest(auth.AuthorKey)
		if err != nil {
			return nil, err
		}
		f.AuthorKeyDigest = hex.EncodeToString(author[:])
	}
	return f, nil
}

func (a *app) readIDBlockText(name string) (idblock.Block, *idblock.Auth, error) {
	var text []byte
	var err error
	if name == "-" {
		text, err = io.ReadAll(io.LimitReader(a.stdin, idblock.MaxText+1))
	} else {
		text, err = cli.ReadBounded(name, idblock.MaxText)
	}
	if err != nil {
		return idblock.Block{}, nil, err
	}
	return idblock.ParseText(string(text))
}

func readIDBlockFiles(blockFile, authFile string) (idblock.Block, *idblock.Auth, error) {
	raw, err := readBlock(blockFile, idblock.BlockSize)
	if err != nil {
		return idblock.Block{}, nil, err
	}
	b, err := idblock.ParseBlock(raw)
	if err != nil {
		return idblock.Block{}, nil, fmt.Errorf("%s: %w", blockFile, err)
	}
	if raw, err = readBlock(authFile, idblock.AuthSize); err != nil {
		return idblock.Block{}, nil, err
	}
	auth, err := idblock.ParseAuth(raw)
	if err != nil {
		return idblock.Block{}, nil, fmt.Errorf("%s: %w", authFile, err)
	}
	return b, auth, nil
}

// readBlock reads a block as it is, or in base64.
func readBlock(name string, size int) ([]byte, error) {
	data, err := cli.ReadBounded(name, idblock.MaxText)
	if err != nil {
		return nil, err
	}
	if len(data) == size {
		return data, nil
	}
	if raw, err := base64.StdEncoding.DecodeString(string(data)); err == nil {
		return raw, nil
	}
	return data, nil // its length will be complained about
}

func readIDKey(name string) (*ecdsa.PrivateKey, error) {
	text, err := cli.ReadBounded(name, idblock.MaxText)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	key, err := idblock.ParseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return key, nil
}

// decodeInto fills b from hexadecimal or base64 of just its length.
func decodeInto(b []byte, text string) bool {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(b) {
		raw, err = base64.StdEncoding.DecodeString(text)
	}
	return err == nil && len(raw) == len(b) && copy(b, raw) == len(b)
}
