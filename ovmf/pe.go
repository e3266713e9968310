package ovmf

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrNotEFIApplication says that a file is not a PE32+ EFI application for x86-64.
var ErrNotEFIApplication = errors.New("not a PE32+ EFI application for x86-64")

// Fields of a PE file (Microsoft PE Format; machine and subsystem: UEFI specification, 2.1.1).
const (
	peMachineAMD64   = 0x8664
	peMagic          = 0x20b // PE32+
	peEFIApplication = 10    // subsystem
	peHeaders        = 24    // signature and file header
	peOptionalMin    = 112   // up to the data directories
	peSection        = 40
)

// checkEFIApplication checks what the firmware will look at before it starts an application, and
// that no section lies outside the file.
func checkEFIApplication(b []byte) error {
	fail := func(format string, args ...any) error {
		return fmt.Errorf("%w: "+format, append([]any{ErrNotEFIApplication}, args...)...)
	}
	if len(b) < 64 || string(b[:2]) != "MZ" {
		return fail("no MZ header")
	}
	pe := int64(binary.LittleEndian.Uint32(b[60:]))
	if pe+peHeaders > int64(len(b)) || string(b[pe:pe+4]) != "PE\x00\x00" {
		return fail("no PE header at %#x", pe)
	}
	h := b[pe:]
	if machine := binary.LittleEndian.Uint16(h[4:]); machine != peMachineAMD64 {
		return fail("machine %#x, not %#x", machine, peMachineAMD64)
	}
	sections, optional := int64(binary.LittleEndian.Uint16(h[6:])), int64(binary.LittleEndian.Uint16(h[20:]))
	table := peHeaders + optional
	if optional < peOptionalMin || table+peSection*sections > int64(len(h)) || sections == 0 {
		return fail("headers for %d sections, %d bytes of optional header, in a file of %d bytes", sections, optional, len(b))
	}
	if magic := binary.LittleEndian.Uint16(h[24:]); magic != peMagic {
		return fail("optional header %#x, not %#x", magic, peMagic)
	}
	if subsystem := binary.LittleEndian.Uint16(h[peHeaders+68:]); subsystem != peEFIApplication {
		return fail("subsystem %d, not %d", subsystem, peEFIApplication)
	}
	for i := range sections {
		s := h[table+peSection*i:]
		size, at := int64(binary.LittleEndian.Uint32(s[16:])), int64(binary.LittleEndian.Uint32(s[20:]))
		if size != 0 && at+size > int64(len(b)) {
			return fail("section %d lies from %#x to %#x in a file of %d bytes", i, at, at+size, len(b))
		}
	}
	return nil
}
