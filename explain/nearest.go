package explain

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"github.com/sealboot/sealboot/measure"
)

// Nearest is what is known where nothing fits: the record's launch of the digest's kind of which the fewest inputs are
// lacking. If none is, all that is searched around it was: the machine differs from it in something else.
type Nearest struct {
	Launch  measure.LaunchDigest `json:"launch"`
	About   string               `json:"about"`
	Lacking []string             `json:"lacking,omitempty"` // what the launch is made of and was not given
}

// nearestKnown finds it, the first of equals; none if the record has none of that kind.
func (q Query) nearestKnown() (best *Nearest) {
	for _, d := range q.Record.Digests {
		if !q.ofKind(d.Mode) {
			continue
		}
		if n := (&Nearest{d, About(d.Launch), q.lacking(d)}); best == nil || len(n.Lacking) < len(best.Lacking) {
			best = n
		}
	}
	return best
}

// ofKind says whether a launch of that mode could be what was measured.
func (q Query) ofKind(mode measure.Mode) bool {
	if q.Measured != nil {
		return mode == q.Measured.mode()
	}
	return mode.DigestSize() == len(q.Digest)
}

// lacking lists what the record's launch is made of and is not at hand.
func (q Query) lacking(d measure.LaunchDigest) (list []string) {
	if !among(q.Firmware, q.Record.Firmware.SHA256[:]) {
		list = append(list, fmt.Sprintf("firmware with SHA-256 %v", q.Record.Firmware.SHA256))
	}
	if d.SVSM != nil && !among(q.SVSM, d.SVSM) {
		list = append(list, fmt.Sprintf("SVSM with SHA-256 %v", d.SVSM))
	}
	if len(d.KernelHashes) == 0 {
		return list
	}
	for _, h := range q.hashesChoices() {
		if h.table != nil && bytes.Equal(h.sum[:], d.KernelHashes) {
			return list
		}
	}
	return append(list, fmt.Sprintf("kernel, initrd and command line whose table of hashes has SHA-256 %v", d.KernelHashes))
}

func among(files []Firmware, sum []byte) bool {
	for _, f := range files {
		if has := sha256.Sum256(f.Data); bytes.Equal(has[:], sum) {
			return true
		}
	}
	return false
}

// hints says what is known where nothing fits, and what to give next.
func (q Query) hints(nearest *Nearest) (hints []string) {
	hint := func(format string, args ...any) { hints = append(hints, fmt.Sprintf(format, args...)) }
	if nearest == nil {
		kind := "SEV-SNP"
		if q.Measured != nil {
			kind = "mode " + string(q.Measured.mode()) + ", the policy's"
		} else if len(q.Digest) == measure.SEV.DigestSize() {
			kind = "SEV or SEV-ES"
		}
		hint("the digest is one of %s, the record has none of that kind", kind)
	}
	switch {
	case len(q.Firmware) == 0:
		hint("only the record's digests could be compared: give the firmware file, to search the ways to launch it")
	case !among(q.Firmware, q.Record.Firmware.SHA256[:]):
		hint("the record's own firmware, SHA-256 %v, is not among the files", q.Record.Firmware.SHA256)
	default:
		hint("the record's own firmware was searched: the machine ran other firmware, or was launched in a way that is not searched: " +
			"give other firmware files, a larger number of vCPUs, or their signature")
	}
	if q.Kernel == nil {
		hint("no kernel was given: launches with kernel hashes could not be tried")
	}
	if len(q.SVSM) == 0 && len(q.Digest) == measure.SNPSVSM.DigestSize() {
		hint("no SVSM was given: of launches under one only the record's own were compared")
	}
	if q.Measured != nil {
		if q.Measured.API == nil {
			hint("no API version was given: only the likeliest launches of firmware files were searched for the measurement")
		}
		hint("a measurement under another session's TIK fits nothing")
	}
	return hints
}
