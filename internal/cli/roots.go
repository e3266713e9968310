package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/sealboot/sealboot/sev"
)

// maxRootFile bounds a file given as --trust-root: ASK and ARK of 4096 bits take 3200 bytes.
const maxRootFile = 16 << 10

// TrustedRoots gives AMD's roots and those that --trust-root names.
func TrustedRoots(extra []string) (sev.RootSet, error) {
	roots := sev.AMDRoots()
	for _, value := range extra {
		digest, err := rootDigest(value)
		if err != nil {
			return nil, err
		}
		roots = roots.With("own-root-"+digest.String()[:8], digest)
	}
	return roots, nil
}

// rootDigest takes a digest, or a file that holds one, an ARK, or an ASK and an ARK of the same size.
func rootDigest(value string) (sev.RootDigest, error) {
	if digest, err := sev.ParseRootDigest(value); err == nil {
		return digest, nil
	}
	f, err := os.Open(value)
	if errors.Is(err, os.ErrNotExist) {
		return sev.RootDigest{}, Usagef("--trust-root %q is neither 64 hexadecimal digits nor a file", value)
	}
	if err != nil {
		return sev.RootDigest{}, fmt.Errorf("read root: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRootFile+1))
	if err != nil {
		return sev.RootDigest{}, fmt.Errorf("read root: %w", err)
	}
	if digest, err := sev.ParseRootDigest(strings.TrimSpace(string(data))); err == nil {
		return digest, nil
	}
	ark, err := sev.ParseCACertificate(data)
	if err != nil && len(data)%2 == 0 {
		ark, err = sev.ParseCACertificate(data[len(data)/2:])
	}
	if err != nil {
		return sev.RootDigest{}, fmt.Errorf("read root %s: neither a digest nor an ARK: %w", value, err)
	}
	return ark.KeyDigest()
}
