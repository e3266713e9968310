// Package idblock makes and checks the ID block of SEV-SNP and its authentication block: with them the secure processor itself
// starts a guest only if its launch digest and policy are those that the guest's owner signed, and
// every attestation report names the keys that signed, by their digests.
//
// A Block is signed with the ID key, whose public half may be certified by an author key; both are ECDSA on P-384 with
// SHA-384. The same block and keys give the same bytes: signatures are made as RFC 6979 has it.
// Parsing is strict: reserved bytes must be zero, versions and algorithms the only known ones.
//
// Sources: AMD, SEV Secure Nested Paging Firmware ABI (56860), SNP_LAUNCH_FINISH (tables "Structure of the ID Block" and
// "Structure of the ID Authentication Information") and chapter "Digital signatures"; QEMU's sev-snp-guest takes both as base64
// (qapi/qom.json, id-block, id-auth, author-key-enabled).
package idblock

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes of the two blocks.
const (
	BlockSize = 96
	AuthSize  = 4096
)

const blockVersion = 1

// DefaultPolicy allows simultaneous multithreading, and neither debugging nor migration.
const DefaultPolicy uint64 = 1<<17 | 1<<16

// policyReserved is the bit that must be one (SNP ABI, guest policy).
const policyReserved = 1 << 17

// Errors that callers tell apart.
var (
	ErrFormat    = errors.New("malformed ID block or authentication block")
	ErrSignature = errors.New("signature does not fit")
	ErrKey       = errors.New("not a P-384 key")
)

// Block is what the owner vouches for.
type Block struct {
	Digest   [48]byte // the launch digest
	FamilyID [16]byte // the owner's own names, given back in reports
	ImageID  [16]byte
	GuestSVN uint32 // security version of the guest
	Policy   uint64 // of the guest, to be launched with exactly this one
}

// Validate reports all that is wrong with the block.
func (b Block) Validate() error {
	var errs []error
	if b.Digest == ([48]byte{}) {
		errs = append(errs, fmt.Errorf("%w: launch digest is all zero", ErrFormat))
	}
	if b.Policy&policyReserved == 0 {
		errs = append(errs, fmt.Errorf("%w: policy %#x lacks bit 17, which must be one", ErrFormat, b.Policy))
	}
	return errors.Join(errs...)
}

// Encode gives the block's bytes, and refuses what Validate refuses.
func (b Block) Encode() ([]byte, error) {
	if err := b.Validate(); err != nil {
		return nil, err
	}
	out := make([]byte, 0, BlockSize)
	out = append(out, b.Digest[:]...)
	out = append(out, b.FamilyID[:]...)
	out = append(out, b.ImageID[:]...)
	out = binary.LittleEndian.AppendUint32(out, blockVersion)
	out = binary.LittleEndian.AppendUint32(out, b.GuestSVN)
	return binary.LittleEndian.AppendUint64(out, b.Policy), nil
}

// ParseBlock reads a block.
func ParseBlock(raw []byte) (Block, error) {
	if len(raw) != BlockSize {
		return Block{}, fmt.Errorf("%w: ID block of %d bytes, not %d", ErrFormat, len(raw), BlockSize)
	}
	if v := binary.LittleEndian.Uint32(raw[80:]); v != blockVersion {
		return Block{}, fmt.Errorf("%w: ID block of version %d, not %d", ErrFormat, v, blockVersion)
	}
	b := Block{GuestSVN: binary.LittleEndian.Uint32(raw[84:]), Policy: binary.LittleEndian.Uint64(raw[88:])}
	copy(b.Digest[:], raw)
	copy(b.FamilyID[:], raw[48:])
	copy(b.ImageID[:], raw[64:])
	if err := b.Validate(); err != nil {
		return Block{}, err
	}
	return b, nil
}
