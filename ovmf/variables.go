package ovmf

import (
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"

	"github.com/sealboot/sealboot/internal/guid"
)

// GUIDs of the variable store (edk2 MdeModulePkg/Include/Guid/SystemNvDataGuid.h, VariableFormat.h).
var (
	nvDataGUID        = guid.MustParse("fff12b8d-7696-4c8b-a985-2747075b4f50")
	variablesGUID     = guid.MustParse("ddcf3616-3275-4164-98b6-fe85707ffe7d")
	authVariablesGUID = guid.MustParse("aaf32c78-947b-439a-a180-2e144ec37792")
)

// Variable store and its variables (edk2 MdeModulePkg/Include/Guid/VariableFormat.h).
const (
	storeHeader        = 28 // GUID, u32 size, u8 format, u8 state, u16, u32
	storeFormatted     = 0x5a
	storeHealthy       = 0xfe
	variableStart      = 0x55aa
	variableHeader     = 32 // u16 start, u8 state, u8, u32 attributes, u32 name size, u32 data size, GUID
	authVariableHeader = 60 // between attributes and name size: u64 count, time, u32 key
	variableDeleted    = 0x02
	maxVariables       = 4096
)

// bootVariable says whether the variable makes the firmware boot or load something (UEFI specification, 3.3,
// globally defined variables).
func bootVariable(name string) bool {
	for _, kind := range []string{"Boot", "Driver", "SysPrep", "OsRecovery", "PlatformRecovery"} {
		rest, ok := strings.CutPrefix(name, kind)
		if ok && (rest == "Order" || rest == "Next" || len(rest) == 4 && strings.Trim(rest, "0123456789ABCDEFabcdef") == "") {
			return true
		}
	}
	return false
}

// variable is one that was set in the image.
type variable struct {
	vendor guid.GUID
	name   string
}

// variables reads the variable store in a volume, deleted ones left out.
// clean says that nothing stands behind the last one.
func variables(v *Volume) (list []variable, clean bool, err error) {
	b := v.raw
	fail := func(offset int, format string, args ...any) ([]variable, bool, error) {
		return nil, false, &FormatError{fmt.Sprintf("variable store at %#x", v.Offset+len(v.head)), offset, fmt.Sprintf(format, args...)}
	}
	if len(b) < storeHeader {
		return fail(0, "%d bytes, too few for a header", len(b))
	}
	header, sizes := variableHeader, 8
	switch guid.GUID(b[:16]) {
	case variablesGUID:
	case authVariablesGUID:
		header, sizes = authVariableHeader, 36
	default:
		return fail(0, "unknown kind %v", guid.GUID(b[:16]))
	}
	size := int64(binary.LittleEndian.Uint32(b[16:]))
	if size < storeHeader || size > int64(len(b)) {
		return fail(16, "store of %d bytes, %d left", size, len(b))
	}
	if b[20] != storeFormatted || b[21] != storeHealthy {
		return fail(20, "format %#x, state %#x", b[20], b[21])
	}
	b = b[:size]
	at := storeHeader
	for ; len(b)-at >= header && binary.LittleEndian.Uint16(b[at:]) == variableStart; at = align(at, 4) {
		if len(list) == maxVariables {
			return fail(at, "more than %d variables", maxVariables)
		}
		h := b[at:]
		name, data := int64(binary.LittleEndian.Uint32(h[sizes:])), int64(binary.LittleEndian.Uint32(h[sizes+4:]))
		left := int64(len(h) - header)
		if end := (name+3)&^3 + data; name%2 != 0 || end > left {
			return fail(at, "variable with %d bytes of name and %d of data, %d left", name, data, left)
		}
		if h[2]&variableDeleted != 0 { // the bit is cleared when it is deleted
			list = append(list, variable{guid.GUID(h[header-16 : header]), utf16Name(h[header : header+int(name)])})
		}
		at += header + int((name+3)&^3+data)
	}
	at = min(at, len(b))
	return list, isErased(b[at:]), nil
}

// utf16Name gives a name, cut where it is longer than any known one.
func utf16Name(b []byte) string {
	var text []uint16
	for i := 0; i+1 < len(b) && len(text) < 64; i += 2 {
		c := binary.LittleEndian.Uint16(b[i:])
		if c == 0 {
			break
		}
		text = append(text, c)
	}
	return string(utf16.Decode(text))
}

// Working block of the fault-tolerant write, which replays what it holds (edk2
// MdeModulePkg/Include/Guid/SystemNvDataGuid.h, EFI_FAULT_TOLERANT_WORKING_BLOCK_HEADER).
var workingBlockGUID = guid.MustParse("9e58292b-7c68-497d-a0ce-6500fd9f1b95")

const workingBlockHeader = 32 // GUID, u32 checksum, u8 state, 3, u64 size of the queue

// writesPending says whether something else than an empty working block stands behind the variables.
func writesPending(v *Volume) bool {
	size := min(int64(binary.LittleEndian.Uint32(v.raw[16:])), int64(len(v.raw))) // variables checked it
	for b := v.raw[size:]; len(b) > 0; {
		n := min(len(b), blockSize)
		block := b[:n]
		if n >= workingBlockHeader && guid.GUID(block[:16]) == workingBlockGUID {
			block = block[workingBlockHeader:]
		}
		if !isErased(block) {
			return true
		}
		b = b[n:]
	}
	return false
}

// lintVariables wants no variable that makes the firmware boot or load anything.
func (r *LintReport) lintVariables(t *Tree) {
	const most = 16 // findings
	for _, v := range t.Volumes() {
		if v.FileSystem != nvDataGUID {
			continue
		}
		list, clean, err := variables(v)
		if err != nil {
			r.addError("boot-variables", err)
			continue
		}
		boots, others := 0, 0
		for _, variable := range list {
			switch {
			case !bootVariable(variable.name):
				if others++; others <= most {
					r.add("variables", Warning, "variable %q (%v)", variable.name, variable.vendor)
				}
			default:
				if boots++; boots <= most {
					r.add("boot-variables", Unfit, "variable %s (%v)", variable.name, variable.vendor)
				}
			}
		}
		if !clean || writesPending(v) {
			r.add("boot-variables", Unfit, "data behind the variables at %#x: an unfinished write, which the firmware may finish", v.Offset)
		}
	}
}
