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

// ReadBounded reads a file of at most so many bytes, in one allocation where it says its size: one that grows is for a moment there twice.
func ReadBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Size() > 0 && info.Size() <= most { // of /proc's files it is 0
		data := make([]byte, info.Size())
		if _, err := io.ReadFull(f, data); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
		return data, nil
	}
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", name, most)
	}
	return data, nil
}
