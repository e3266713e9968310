package explain

import (
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/sealboot/sealboot/measure"
)

// hashesChoice is one way to fill the hashes table, or (table nil) to have none.
type hashesChoice struct {
	table   []byte
	sum     [sha256.Size]byte // of the table: what the record keeps
	cmdline string
	nul     bool
	initrd  bool
	differs []Difference // from what was given
	plain   bool         // as given, or none: searched with more guest features
}

// additions are what launchers and people put behind a command line, or in front of it.
var additions = []string{
	" ", "\n", " \n", "  ", "\r\n", " console=ttyS0", " console=ttyS0,115200", " console=ttyS0,115200n8", " console=hvc0", " console=tty0",
	" console=tty1", " console=tty0 console=ttyS0", " earlyprintk=serial", " quiet", " ro", " rw", " panic=-1", " reboot=t", " initrd=initrd",
	" loglevel=7", " debug", " nokaslr",
}

// hashesChoices lists the ways, none first, each table once.
func (q Query) hashesChoices() []hashesChoice {
	list := []hashesChoice{{plain: true}}
	if q.Kernel == nil {
		return list
	}
	seen := map[[sha256.Size]byte]bool{}
	add := func(cmdline string, nul, initrd bool) {
		h := hashesChoice{cmdline: cmdline, nul: nul, initrd: initrd}
		raw, none := []byte(cmdline), sha256.Sum256(nil)
		if nul {
			raw = append(raw, 0)
		} else {
			h.differs = append(h.differs, Difference{"command line's end", "with its NUL", "without NUL", 2})
		}
		ramdisk := none
		if initrd {
			ramdisk = *q.Initrd
		} else if q.Initrd != nil {
			h.differs = append(h.differs, Difference{"initrd", "as given", "none", 3})
		}
		if cmdline != q.Append {
			h.differs = append(h.differs, Difference{"command line", fmt.Sprintf("%q", q.Append), fmt.Sprintf("%q", cmdline), 2})
		}
		h.plain = len(h.differs) == 0
		h.table = measure.HashesTable(*q.Kernel, ramdisk, sha256.Sum256(raw))
		h.sum = sha256.Sum256(h.table)
		if !seen[h.sum] {
			seen[h.sum] = true
			list = append(list, h)
		}
	}
	lines := []string{q.Append, strings.TrimSpace(q.Append), ""}
	for _, extra := range additions {
		lines = append(lines, q.Append+extra, strings.TrimSpace(q.Append+extra), strings.TrimLeft(extra, " ")+" "+q.Append)
		if without, ok := strings.CutSuffix(q.Append, extra); ok {
			lines = append(lines, without)
		}
	}
	for _, nul := range []bool{true, false} {
		for _, line := range lines {
			if q.Initrd != nil {
				add(line, nul, true)
			}
			add(line, nul, false)
		}
	}
	return list
}

// differences says how the way differs from a launch of the record.
func (h *hashesChoice) differences(expected measure.Hex) []Difference {
	switch on := len(expected) > 0; {
	case h.table == nil && on:
		return []Difference{{"kernel hashes", "on", "off", 3}}
	case h.table == nil || string(expected) == string(h.sum[:]):
		return nil
	case !on:
		return append([]Difference{{"kernel hashes", "off", "on", 3}}, h.differs...)
	case len(h.differs) == 0:
		return []Difference{{"kernel, initrd or command line", "hashes table " + expected.String(), "as given", 4}}
	}
	return h.differs
}
