package agent

import (
	"fmt"
	"strings"
)

// Order is what the kernel command line asks of the agent.
type Order struct {
	Disk       string // LUKS UUID of the disk
	ReadOnly   bool   // ro, unless rw comes later
	FileSystem string // rootfstype=; "" tries the usual ones
	Options    string // rootflags=
	Init       string // init=, /sbin/init by default
}

// ParseOrder reads a kernel command line (Linux Documentation/admin-guide/kernel-parameters): words
// divided by spaces, double quotes keep a word together, the last of several counts, and
// what follows "--" is init's.
func ParseOrder(line string) (Order, error) {
	o := Order{ReadOnly: true, Init: "/sbin/init"}
	for _, word := range words(line) {
		if word == "--" {
			break
		}
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case DiskParameter:
			o.Disk = strings.ToLower(value)
		case "ro", "rw":
			o.ReadOnly = key == "ro"
		case "rootfstype":
			o.FileSystem = value
		case "rootflags":
			o.Options = value
		case "init":
			o.Init = value
		}
	}
	switch {
	case o.Disk == "":
		return Order{}, ErrNoDiskName
	case !isUUID(o.Disk):
		return Order{}, fmt.Errorf("%w: %q is not a UUID", ErrNoDiskName, o.Disk)
	case !strings.HasPrefix(o.Init, "/"):
		return Order{}, fmt.Errorf("%w: init=%s is not a path from the root", ErrNoInit, o.Init)
	}
	return o, nil
}

func words(line string) []string {
	var list []string
	var word strings.Builder
	quoted, begun := false, false
	end := func() {
		if begun {
			list = append(list, word.String())
		}
		word.Reset()
		begun = false
	}
	for _, c := range []byte(line) {
		switch {
		case c == '"':
			quoted, begun = !quoted, true
		case (c == ' ' || c == '\t' || c == '\n') && !quoted:
			end()
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	end()
	return list
}

// isUUID takes the form 8-4-4-4-12 in lower case.
func isUUID(s string) bool {
	if len(s) != 36 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		dash := i == 8 || i == 13 || i == 18 || i == 23
		if dash != (c == '-') || !dash && !('0' <= c && c <= '9' || 'a' <= c && c <= 'f') {
			return false
		}
	}
	return true
}
