package snp

import (
	"errors"
	"fmt"
)

// Why a report speaks for nobody. Verify's errors wrap one of these, or are a *FormatError or a *LinkError.
var (
	ErrProduct       = errors.New("no processor that is known to have SEV-SNP")
	ErrUnsigned      = errors.New("report is not signed: the host masks the chip's key")
	ErrNoCertificate = errors.New("a certificate is missing")
	ErrUntrustedRoot = errors.New("the root key is not trusted")
	ErrRevoked       = errors.New("certificate is revoked")
	ErrSignature     = errors.New("report is not signed by the certificate's key")
	ErrMismatch      = errors.New("certificate is for another report")
)

// What a policy complains of. Each complaint of a Verdict is a *Complaint that wraps one of these.
var (
	ErrReportData    = errors.New("report data is not the challenge's")
	ErrDebug         = errors.New("guest can be debugged")
	ErrGuestPolicy   = errors.New("guest policy")
	ErrPlatform      = errors.New("platform")
	ErrVMPL          = errors.New("VMPL")
	ErrNotAllowed    = errors.New("not allowed") // a product, report version or signer
	ErrTCB           = errors.New("TCB")
	ErrFirmware      = errors.New("firmware")
	ErrSVN           = errors.New("guest's security version")
	ErrKey           = errors.New("ID block's key")
	ErrChip          = errors.New("chip")
	ErrLaunchData    = errors.New("launch data") // family, image and host data
	ErrRevocationAge = errors.New("AMD's revocations are not known")
)

// FormatError says where a report or a certificate is not what it should be.
type FormatError struct {
	Field   string
	Problem string
}

func (e *FormatError) Error() string { return fmt.Sprintf("%s: %s", e.Field, e.Problem) }

// LinkError says which certificate of a chain does not hold.
type LinkError struct {
	Certificate string
	Err         error
}

func (e *LinkError) Error() string { return fmt.Sprintf("%s: %v", e.Certificate, e.Err) }

func (e *LinkError) Unwrap() error { return e.Err }

// Complaint is one thing that a policy does not allow.
type Complaint struct {
	Reason error // one of the errors above
	Detail string
	Cause  error // what led to it, where that is known; it wraps ErrUnavailable where the same report may be taken later
}

func (e *Complaint) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%v: %s: %v", e.Reason, e.Detail, e.Cause)
	}
	return fmt.Sprintf("%v: %s", e.Reason, e.Detail)
}

func (e *Complaint) Unwrap() []error {
	if e.Cause != nil {
		return []error{e.Reason, e.Cause}
	}
	return []error{e.Reason}
}
