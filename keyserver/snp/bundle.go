package snp

import (
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// Bounds of a bundle.
const (
	maxBundleFile  = 1 << 20
	maxBundleFiles = 4096
)

// Bundle holds certificates and revocations that the owner brings: ARKs, ASKs, ASVKs, VCEKs, VLEKs and AMD's lists, from files of PEM or DER.
// What is in one is not trusted for that: it is looked up by what it says, and then followed up to a root like what a guest sends.
type Bundle struct {
	issuers      []*x509.Certificate
	endorsements []*endorsement
	lists        []*list
}

// ReadBundle reads every file of a folder with one of the endings .pem, .crt, .cer, .der and .crl, and the folders below. A file that
// does not read is an error: a list of revocations that nobody notices missing is worse.
func ReadBundle(folder fs.FS) (*Bundle, error) {
	b := new(Bundle)
	files := 0
	err := fs.WalkDir(folder, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		switch strings.ToLower(path.Ext(name)) {
		case ".pem", ".crt", ".cer", ".der", ".crl":
		default:
			return nil
		}
		if files++; files > maxBundleFiles {
			return fmt.Errorf("more than %d files", maxBundleFiles)
		}
		f, err := folder.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return b.add(name, f)
	})
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return b, nil
}

// OpenBundle reads a file, or a folder as ReadBundle does.
func OpenBundle(name string) (*Bundle, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	if info.IsDir() {
		return ReadBundle(os.DirFS(name))
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	defer f.Close()
	return ReadBundleFile(name, f)
}

// ReadBundleFile reads one file.
func ReadBundleFile(name string, r io.Reader) (*Bundle, error) {
	b := new(Bundle)
	if err := b.add(name, r); err != nil {
		return nil, fmt.Errorf("read certificates: %w", err)
	}
	return b, nil
}

func (b *Bundle) add(name string, r io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(r, maxBundleFile+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(data) > maxBundleFile {
		return fmt.Errorf("%s: more than %d bytes", name, maxBundleFile)
	}
	certificates, lists, err := splitDER(data, maxBundleFiles)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if len(certificates)+len(lists) == 0 {
		return fmt.Errorf("%s: is empty", name)
	}
	for _, der := range certificates {
		c, err := parseCertificate(der)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if c.IsCA {
			b.issuers = append(b.issuers, c)
			continue
		}
		signer := VCEK
		if c.Subject.CommonName == commonName[VLEK] {
			signer = VLEK
		}
		e, err := parseEndorsement(c, signer)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.endorsements = append(b.endorsements, e)
	}
	for _, der := range lists {
		l, err := parseList(der)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.lists = append(b.lists, l)
	}
	return nil
}
