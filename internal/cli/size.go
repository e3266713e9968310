package cli

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// ByteSize is the value of a flag that takes a number of bytes: 4096, 512K, 64M, 4G, 1T, in
// units of 1024.
type ByteSize int64

func (s *ByteSize) String() string { return strconv.FormatInt(int64(*s), 10) }

// Type is what the help shows for the value.
func (s *ByteSize) Type() string { return "SIZE" }

// Set reads a size.
func (s *ByteSize) Set(text string) error {
	digits, shift := text, 0
	if i := strings.IndexAny(text, "KMGT"); i >= 0 && i == len(text)-1 {
		digits, shift = text[:i], 10*(1+strings.IndexByte("KMGT", text[i]))
	}
	n, err := strconv.ParseUint(digits, 10, 62)
	if err != nil || n > 1<<62>>shift {
		return fmt.Errorf("%q is not a size such as 4096, 512K, 64M or 4G", text)
	}
	*s = ByteSize(n << shift)
	return nil
}

// AddOffset adds the flag --offset.
func (s *ByteSize) AddOffset(cmd *cobra.Command) {
	cmd.Flags().Var(s, "offset", "where the encrypted disk or partition begins in FILE, such as 1M")
}
