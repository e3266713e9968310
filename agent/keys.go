package agent

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/sealboot/sealboot/agent/receipt"
	"github.com/sealboot/sealboot/luks"
)

const maxPassphrase = 4096 // bytes; far above what GRUB takes

// TakeKeys reads the key files in a folder, overwrites them and removes them: all of them, also
// when one of them is refused.
func TakeKeys(folder string) (*Keys, error) {
	passphrase, errPassphrase := take(filepath.Join(folder, PassphraseFile), maxPassphrase)
	pin, errPin := take(filepath.Join(folder, PinFile), len(luks.Pin{}))
	note, errReceipt := takeReceipt(folder)
	errRemove := os.RemoveAll(folder)
	k := &Keys{Passphrase: passphrase, Receipt: note}
	var err error
	switch {
	case errPassphrase != nil:
		err = fmt.Errorf("%w: %w", ErrNoPassphrase, errPassphrase)
	case len(passphrase) == 0:
		err = fmt.Errorf("%w: it is empty", ErrNoPassphrase)
	case errPin != nil:
		err = fmt.Errorf("%w: %w", ErrNoPin, errPin)
	case copy(k.Pin[:], pin) != len(k.Pin):
		err = fmt.Errorf("%w: it has %d bytes, not %d", ErrNoPin, len(pin), len(k.Pin))
	case errReceipt != nil:
		err = fmt.Errorf("%w: %w", ErrReceipt, errReceipt)
	case errRemove != nil:
		err = fmt.Errorf("remove key files: %w", errRemove)
	}
	if err != nil {
		k.Wipe()
		return nil, err
	}
	return k, nil
}

// takeReceipt gives nil if there is none.
func takeReceipt(folder string) (*receipt.Receipt, error) {
	used, errUsed := take(filepath.Join(folder, UsedFile), len(receipt.Previous))
	entry, err := take(filepath.Join(folder, ReceiptFile), receipt.Size)
	defer clear(entry)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case errUsed != nil:
		return nil, errUsed
	}
	return receipt.New(entry, used)
}

// take reads a file of at most limit bytes and overwrites it in place: in the initramfs a
// file is nothing but its pages in memory.
func take(name string, limit int) ([]byte, error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	size := info.Size()
	content := make([]byte, min(size, int64(limit)))
	_, errRead := io.ReadFull(f, content)
	// Overwritten whatever it is: what is too long may be a key with something behind it.
	_, errWrite := io.CopyN(io.NewOffsetWriter(f, 0), zeros{}, size)
	switch {
	case errRead != nil:
		err = fmt.Errorf("read %s: %w", name, errRead)
	case errWrite != nil:
		err = fmt.Errorf("overwrite %s: %w", name, errWrite)
	case size > int64(limit):
		err = fmt.Errorf("%s has %d bytes, more than %d", name, size, limit)
	}
	if err != nil {
		clear(content)
		return nil, err
	}
	return content, nil
}

// zeros reads as zeros without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
