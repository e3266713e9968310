package keyserver

import (
	"fmt"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// Refusal is a no. The class goes to the host; cause and reason are for the owner's audit and log alone.
type Refusal struct {
	Class  wire.Class
	Cause  error
	Reason string // what is likely behind the cause, where that was looked for
}

func (r *Refusal) Error() string { return fmt.Sprintf("%s: %v", r.Class, r.Cause) }
func (r *Refusal) Unwrap() error { return r.Cause }

func refusef(class wire.Class, format string, args ...any) *Refusal {
	return &Refusal{Class: class, Cause: fmt.Errorf(format, args...)}
}
