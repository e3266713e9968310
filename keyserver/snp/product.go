package snp

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"strings"
)

// Product is a line of processors that AMD certifies under one ARK. Siena and Bergamo are of Genoa's line: their VCEKs
// come from Genoa's ASK, and the key service knows them under that name (publication 57230, "Determining the product name").
type Product string

// The products with SEV-SNP.
const (
	Milan Product = "Milan"
	Genoa Product = "Genoa"
	Turin Product = "Turin"
)

var products = []Product{Milan, Genoa, Turin}

// layout is where a product's TCB_VERSION has its parts: the byte of each, -1 for none (publication 56860,
// TCB_VERSION; the second form is that of family 1Ah).
type layout struct{ fmc, bootloader, tee, snp, microcode int }

func (p Product) layout() (layout, bool) {
	switch p {
	case Milan, Genoa:
		return layout{-1, 0, 1, 6, 7}, true
	case Turin:
		return layout{0, 1, 2, 3, 7}, true
	}
	return layout{}, false
}

// productOf finds the product of a processor's family, model and stepping, and its own name where it has another one.
// Ranges of models: publication 57230, and the processor programming references of each family.
func productOf(family, model uint8) (Product, string, bool) {
	switch {
	case family == 0x19 && model <= 0x0f:
		return Milan, "Milan", true
	case family == 0x19 && model >= 0x10 && model <= 0x1f:
		return Genoa, "Genoa", true
	case family == 0x19 && model >= 0xa0 && model <= 0xaf:
		return Genoa, "Siena or Bergamo", true
	case family == 0x1a && model <= 0x11:
		return Turin, "Turin", true
	}
	return "", "", false
}

// TCB is the security version of each part of a platform's firmware. FMC is there on Turin alone.
type TCB struct {
	FMC, Bootloader, TEE, SNP, Microcode uint8
}

// String gives the parts that go into a VCEK.
func (t TCB) String() string {
	return fmt.Sprintf("fmc %d, bootloader %d, tee %d, snp %d, microcode %d", t.FMC, t.Bootloader, t.TEE, t.SNP, t.Microcode)
}

// parseTCB reads TCB_VERSION. Bytes without a meaning must be zero: a part that is not known cannot be judged.
func parseTCB(p Product, version uint64) (TCB, error) {
	l, ok := p.layout()
	if !ok {
		return TCB{}, fmt.Errorf("%w: %q", ErrProduct, string(p))
	}
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], version)
	take := func(i int) (part uint8) {
		if i >= 0 {
			part, b[i] = b[i], 0
		}
		return part
	}
	t := TCB{take(l.fmc), take(l.bootloader), take(l.tee), take(l.snp), take(l.microcode)}
	if b != [8]byte{} {
		return TCB{}, &FormatError{Field: "TCB_VERSION", Problem: fmt.Sprintf("%#016x has a part that %s does not have", version, p)}
	}
	return t, nil
}

// below names the parts of t that are lower than the floor's.
func (t TCB) below(floor TCB) []string {
	var parts []string
	for _, part := range []struct {
		name      string
		have, min uint8
	}{
		{"fmc", t.FMC, floor.FMC}, {"bootloader", t.Bootloader, floor.Bootloader}, {"tee", t.TEE, floor.TEE},
		{"snp", t.SNP, floor.SNP}, {"microcode", t.Microcode, floor.Microcode},
	} {
		if part.have < part.min {
			parts = append(parts, fmt.Sprintf("%s %d, not %d", part.name, part.have, part.min))
		}
	}
	return parts
}

// Firmware is a version of the platform's SNP firmware.
type Firmware struct {
	Major, Minor, Build uint8
}

func (f Firmware) String() string { return fmt.Sprintf("%d.%d.%d", f.Major, f.Minor, f.Build) }

func (f Firmware) compare(g Firmware) int {
	return cmp.Or(cmp.Compare(f.Major, g.Major), cmp.Compare(f.Minor, g.Minor), cmp.Compare(f.Build, g.Build))
}

// ParseFirmware reads MAJOR.MINOR.BUILD.
func ParseFirmware(s string) (f Firmware, err error) {
	_, err = fmt.Sscanf(s, "%d.%d.%d", &f.Major, &f.Minor, &f.Build)
	if err != nil || f.String() != s {
		return Firmware{}, fmt.Errorf("firmware %q: want MAJOR.MINOR.BUILD, each up to 255", clip(s))
	}
	return f, nil
}

// ABI is a version of the SNP ABI, as guest policies name it.
type ABI struct {
	Major, Minor uint8
}

func (a ABI) String() string { return fmt.Sprintf("%d.%d", a.Major, a.Minor) }

func (a ABI) compare(b ABI) int {
	return cmp.Or(cmp.Compare(a.Major, b.Major), cmp.Compare(a.Minor, b.Minor))
}

// ParseABI reads MAJOR.MINOR.
func ParseABI(s string) (a ABI, err error) {
	_, err = fmt.Sscanf(s, "%d.%d", &a.Major, &a.Minor)
	if err != nil || a.String() != s {
		return ABI{}, fmt.Errorf("ABI %q: want MAJOR.MINOR, each up to 255", clip(s))
	}
	return a, nil
}

// clip keeps what others wrote short and printable where it goes into an error.
func clip(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
	return s[:min(len(s), 100)]
}
