package snp

import (
	"errors"
	"fmt"
)

// Errors of a report or certificates that do not speak for anybody.
var (
	ErrProduct = errors.New("no processor that is known to have SEV-SNP")
)

// FormatError says where a report or a certificate is not what it should be.
type FormatError struct {
	Field   string
	Problem string
}

func (e *FormatError) Error() string { return fmt.Sprintf("%s: %s", e.Field, e.Problem) }
