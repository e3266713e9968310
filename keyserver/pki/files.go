package pki

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealboot/sealboot/internal/atomicfile"
)

// maxFile bounds a certificate's or key's file in bytes.
const maxFile = 64 << 10

// Names in the folder that Start makes.
const (
	AuthorityCertificate = "ca.crt" // for those who trust the server, and the server's client_ca
	AuthorityKey         = "ca.key" // to be taken to another machine
	ServerCertificate    = "server.crt"
	ServerKey            = "server.key"
)

// Errors of files.
var (
	ErrThere     = errors.New("file is there already")
	ErrNotPEM    = errors.New("not one PEM block of the expected kind")
	ErrOthersMay = errors.New("others may read the key")
	ErrNotKey    = errors.New("not a P-256 key in PKCS #8")
)

// Kinds of PEM blocks (RFC 7468).
const (
	certificateBlock = "CERTIFICATE"
	keyBlock         = "PRIVATE KEY"
)

const authorityName = "sealboot key server CA"

// Start makes a folder with a CA, the server's certificate, and one of a first administrator, NAME.crt and NAME.key. It
// returns the administrator's certificate, for the principal to be added. A folder with any of the files in it is
// refused; what fails half-way stays, to be removed.
func Start(dir string, hosts []string, administrator string, random io.Reader, now time.Time) (*x509.Certificate, error) {
	if !isFileName(administrator) || administrator == "ca" || administrator == "server" {
		return nil, errors.New("make CA: the administrator's name must be letters, digits, '.', '_', '-', and neither ca nor server")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make CA: %w", err)
	}
	for _, name := range []string{AuthorityCertificate, AuthorityKey, ServerCertificate, ServerKey, administrator + ".crt", administrator + ".key"} {
		if _, err := os.Lstat(filepath.Join(dir, name)); err == nil {
			return nil, fmt.Errorf("make CA: %s: %w: choose an empty folder", filepath.Join(dir, name), ErrThere)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("make CA: %w", err)
		}
	}
	key, err := NewKey(random)
	if err != nil {
		return nil, err
	}
	ca, err := NewAuthority(key, authorityName, hosts, random, now)
	if err != nil {
		return nil, err
	}
	serverKey, err := NewKey(random)
	if err != nil {
		return nil, err
	}
	server, err := ca.Server(hosts, serverKey.Public(), ServerLife, now)
	if err != nil {
		return nil, err
	}
	clientKey, err := NewKey(random)
	if err != nil {
		return nil, err
	}
	client, err := ca.Client(administrator, clientKey.Public(), ClientLife, now)
	if err != nil {
		return nil, err
	}
	for _, pair := range []struct {
		certName, keyName string
		cert              *x509.Certificate
		key               *ecdsa.PrivateKey
	}{
		{AuthorityCertificate, AuthorityKey, ca.Certificate, key},
		{ServerCertificate, ServerKey, server, serverKey},
		{administrator + ".crt", administrator + ".key", client, clientKey},
	} {
		if err := WriteKey(filepath.Join(dir, pair.keyName), pair.key); err != nil {
			return nil, err
		}
		if err := WriteCertificate(filepath.Join(dir, pair.certName), pair.cert); err != nil {
			return nil, err
		}
	}
	return client, nil
}

// isFileName takes names that stay in their folder and are not hidden in it.
func isFileName(s string) bool {
	return s != "" && s[0] != '.' && s[0] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '_' || r == '-')
	})
}

// WriteKey writes a key for its owner alone. It never replaces a file: a key that is lost is lost.
func WriteKey(name string, key *ecdsa.PrivateKey) error {
	if _, err := os.Lstat(name); err == nil {
		return fmt.Errorf("write key %s: %w", name, ErrThere)
	} else if !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("write key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	defer clear(der)
	text := pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
	defer clear(text)
	if err := atomicfile.WriteFile(name, text, 0o600); err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	return nil
}

// WriteCertificate writes a certificate, in place of an older one too.
func WriteCertificate(name string, c *x509.Certificate) error {
	if err := atomicfile.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: certificateBlock, Bytes: c.Raw}), 0o644); err != nil {
		return fmt.Errorf("write certificate: %w", err)
	}
	return nil
}

// ReadCertificate reads a file of one certificate.
func ReadCertificate(name string) (*x509.Certificate, error) {
	der, err := readBlock(name, certificateBlock, 0o777)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("read certificate %s: %w", name, err)
	}
	return c, nil
}

// ReadKey reads a file of one key, which others must not be able to read.
func ReadKey(name string) (*ecdsa.PrivateKey, error) {
	der, err := readBlock(name, keyBlock, 0o700)
	defer clear(der)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil { // its text is left out: it may hold some of the key
		return nil, fmt.Errorf("read key %s: %w", name, ErrNotKey)
	}
	own, ok := key.(*ecdsa.PrivateKey)
	if !ok || own.Curve.Params().Name != "P-256" {
		return nil, fmt.Errorf("read key %s: %w", name, ErrNotKey)
	}
	return own, nil
}

// readBlock reads a file of one PEM block; no permission bit outside of allowed may be set.
func readBlock(name, kind string, allowed os.FileMode) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.Perm()&^allowed != 0 {
		return nil, fmt.Errorf("%w %s (mode %04o): chmod 0600 it", ErrOthersMay, name, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	defer clear(text)
	if err != nil {
		return nil, err
	}
	block, rest := pem.Decode(text)
	if len(text) > maxFile || block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) != 0 {
		if block != nil {
			clear(block.Bytes)
		}
		return nil, fmt.Errorf("%s is %w, %s", name, ErrNotPEM, kind)
	}
	return block.Bytes, nil
}
