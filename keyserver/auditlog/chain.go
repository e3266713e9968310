// Package auditlog is the outside of the key server's audit: how its rows are chained, how a state of the chain is signed,
// and the file in which both leave the server. It needs neither the store nor its key: who has the public key can check
// an exported audit, and who has kept a checkpoint can find that the server's audit was rolled back or cut.
//
// The chain. Each row has a number, from 1 on without gaps, and an entry, whose bytes count as they are. Its hash is
//
//	SHA-256("sealboot audit row 1\n" || hash of the row before (32 bytes) || number (8) || length of the entry (8) || entry)
//
// with numbers big-endian, and 32 zero bytes before the first row. So a row's hash stands for all rows up to it.
//
// A Checkpoint is number and hash of a row with the time at which they were signed: a signed note (C2SP signed-note, Ed25519) whose
// text follows C2SP tlog-checkpoint, with the chain's hash in the place of a tree's and the time as an extension line:
//
//	sealboot-audit-0123456789abcdef
//	1204
//	<hash, base64>
//	time 2026-11-26T12:00:00Z
//
//	— sealboot-audit-0123456789abcdef <key hash and signature, base64>
//
// The first line names the log; it follows from the public key (see Origin), so logs of two keys cannot be taken for each other.
//
// An export is text in lines (RFC 8259 objects, in exactly this form; see Reader):
//
//	{"seq":1,"hash":"<64 hexadecimal digits>","entry":{...}}
//	{"checkpoint":"<signed note>"}
//
// Nothing here reads a clock, a file or the environment.
package auditlog

import (
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
)

// Hash is that of a row, and through it of all rows before.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Equal compares in constant time.
func (h Hash) Equal(other Hash) bool { return subtle.ConstantTimeCompare(h[:], other[:]) == 1 }

// Head is a state of the log: how many rows there are and the last one's hash. The zero Head is the log without rows.
type Head struct {
	Size int64
	Hash Hash
}

// Next gives the head after one more row.
func (h Head) Next(entry []byte) Head {
	next := Head{Size: h.Size + 1}
	d := sha256.New()
	d.Write([]byte("sealboot audit row 1\n"))
	d.Write(h.Hash[:])
	d.Write(binary.BigEndian.AppendUint64(nil, uint64(next.Size)))
	d.Write(binary.BigEndian.AppendUint64(nil, uint64(len(entry))))
	d.Write(entry)
	d.Sum(next.Hash[:0])
	return next
}

// Row is an entry in its place in the chain.
type Row struct {
	Seq   int64
	Hash  Hash
	Entry []byte
}

// ChainError says where the audit does not hold: at which row, and how it shows.
type ChainError struct {
	Seq     int64
	Problem string
}

func (e *ChainError) Error() string { return fmt.Sprintf("audit row %d: %s", e.Seq, e.Problem) }

// Walk follows the rows in order and holds them to checkpoints.
type Walk struct {
	head Head
	kept []Checkpoint // those that are still to come, by size
}

// NewWalk starts behind the head. The checkpoints' signatures must have been checked (PublicKey.Open); their order does not
// matter. One of an earlier row is an error: nothing that follows could break it.
func NewWalk(start Head, kept []Checkpoint) (*Walk, error) {
	w := &Walk{head: start, kept: slices.Clone(kept)}
	slices.SortFunc(w.kept, func(a, b Checkpoint) int { return cmp.Compare(a.Size, b.Size) })
	if len(w.kept) > 0 && w.kept[0].Size < start.Size {
		c := w.kept[0]
		return nil, &ChainError{Seq: c.Size + 1, Problem: fmt.Sprintf(
			"row is missing: what is here begins behind row %d, row %d was signed at %s", start.Size, c.Size, stamp(c.Time))}
	}
	return w, w.checkKept()
}

// Head is that of the rows so far.
func (w *Walk) Head() Head { return w.head }

// Row takes the next row.
func (w *Walk) Row(r Row) error {
	if r.Seq != w.head.Size+1 {
		return &ChainError{Seq: w.head.Size + 1, Problem: "row is missing"}
	}
	next := w.head.Next(r.Entry)
	if !next.Hash.Equal(r.Hash) {
		return &ChainError{Seq: r.Seq, Problem: "row or one before it was changed"}
	}
	w.head = next
	return w.checkKept()
}

func (w *Walk) checkKept() error {
	for ; len(w.kept) > 0 && w.kept[0].Size == w.head.Size; w.kept = w.kept[1:] {
		if c := w.kept[0]; !c.Hash.Equal(w.head.Hash) {
			return &ChainError{Seq: c.Size, Problem: fmt.Sprintf("rows are not those that were signed at %s", stamp(c.Time))}
		}
	}
	return nil
}

// End says whether the rows reach as far as the checkpoints do.
func (w *Walk) End() error {
	if len(w.kept) == 0 {
		return nil
	}
	c := w.kept[len(w.kept)-1]
	return &ChainError{Seq: w.head.Size + 1, Problem: fmt.Sprintf(
		"rows are missing at the end: %d there, %d were signed at %s", w.head.Size, c.Size, stamp(c.Time))}
}
