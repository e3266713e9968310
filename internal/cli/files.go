package cli

import (
	"fmt"
	"io"
	"os"

	"github.com/sealboot/sealboot/measure"
)

const maxKeyFile = 4096 // bytes; far above any passphrase that GRUB takes

// ReadKeyFile reads a passphrase: the exact bytes of the file, or of standard input for "-".
func ReadKeyFile(path string, stdin io.Reader) ([]byte, error) {
	if path == "" {
		return nil, Usagef("no passphrase: give --key-file FILE, or - for standard input")
	}
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read passphrase: %w", err)
		}
		defer f.Close()
		in = f
	}
	key, err := io.ReadAll(io.LimitReader(in, maxKeyFile+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read passphrase: %w", err)
	case len(key) == 0:
		return nil, fmt.Errorf("read passphrase: %s is empty", path)
	case len(key) > maxKeyFile:
		return nil, fmt.Errorf("read passphrase: %s has more than %d bytes", path, maxKeyFile)
	}
	return key, nil
}

// ReadRecord reads a boot record.
func ReadRecord(name string) (*measure.Record, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read boot record: %w", err)
	}
	defer f.Close()
	r, err := measure.ReadRecord(f)
	if err != nil {
		return nil, fmt.Errorf("read boot record %s: %w", name, err)
	}
	return r, nil
}
