package lab

import (
	"fmt"
	"os"
)

// FlipByte copies a file and changes one byte of the copy.
func FlipByte(from, to string, offset int) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if offset < 0 || offset >= len(data) {
		return fmt.Errorf("%s has %d bytes, none at %d", from, len(data), offset)
	}
	data[offset] ^= 1
	return os.WriteFile(to, data, 0o644)
}
