package sev

import "fmt"

// Status is a platform's answer to a command that failed (55766, "Status codes").
type Status uint16

// The statuses that the launch commands give.
const (
	StatusInvalidGuestState  Status = 0x02
	StatusInvalidLength      Status = 0x04
	StatusInvalidCertificate Status = 0x06
	StatusPolicyFailure      Status = 0x07
	StatusInvalidAddress     Status = 0x09
	StatusBadMeasurement     Status = 0x0b
	StatusUnsupported        Status = 0x15
	StatusInvalidParam       Status = 0x16
)

func (s Status) Error() string {
	switch s { // the words that QEMU prints for each (target/i386/sev.c)
	case StatusInvalidGuestState:
		return "Guest state is invalid"
	case StatusInvalidLength:
		return "Buffer too small"
	case StatusInvalidCertificate:
		return "Certificate is invalid"
	case StatusPolicyFailure:
		return "Policy is not allowed"
	case StatusInvalidAddress:
		return "Invalid address"
	case StatusBadMeasurement:
		return "Bad measurement"
	case StatusUnsupported:
		return "Feature not supported"
	case StatusInvalidParam:
		return "Invalid parameter"
	}
	return fmt.Sprintf("unknown error %d", uint16(s))
}
