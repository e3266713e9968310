package luks

import (
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"golang.org/x/crypto/argon2"
)

// KDFType names a way to turn a passphrase into a key slot's key, as LUKS2 writes it.
type KDFType string

const (
	PBKDF2   KDFType = "pbkdf2"
	Argon2i  KDFType = "argon2i" // only read
	Argon2id KDFType = "argon2id"
)

// KDF is a way to stretch passphrases, with its cost.
type KDF struct {
	Type       KDFType
	Hash       string // PBKDF2
	Iterations int    // PBKDF2
	Time       int    // Argon2: passes
	MemoryKiB  int    // Argon2
	Parallel   int    // Argon2: lanes
}

var (
	// MinimalPBKDF2 does not stretch: it is for passphrases of 256 random bits, and opens at
	// once in GRUB 2.12, which knows no Argon2. 1000 iterations are the least that cryptsetup
	// accepts.
	MinimalPBKDF2 = KDF{Type: PBKDF2, Hash: "sha256", Iterations: minIterations}
	// DefaultArgon2id is for passphrases that people choose. GRUB 2.12 cannot open such a slot.
	DefaultArgon2id = KDF{Type: Argon2id, Time: 4, MemoryKiB: 256 << 10, Parallel: 4}
)

// Limits bounds the work that a header can ask for. The bounds are checked by [Read], before
// any key slot is tried.
type Limits struct {
	Iterations int   // PBKDF2 iterations of one slot, and of the volume key digest
	MemoryKiB  int   // Argon2 memory of one slot
	Parallel   int   // Argon2 lanes
	Work       int64 // Argon2 passes × MemoryKiB
}

// DefaultLimits lets in all that cryptsetup chooses by itself: at most 1 GiB of memory, and
// a minute or two for a slot.
var DefaultLimits = Limits{
	Iterations: 100_000_000,
	MemoryKiB:  1 << 20,
	Parallel:   16,
	Work:       64 << 20, // 64 passes over 1 GiB
}

const (
	minIterations = 1000 // cryptsetup: MIN_ITERATIONS, and RFC 8018, section 4.2
	minSalt       = 16   // bytes; cryptsetup writes 32
	maxSalt       = 64
)

// check reports a cost that is absurd. The sizes of the fields are known to fit an int.
func (k KDF) check(field string, limits Limits) error {
	switch k.Type {
	case PBKDF2:
		if _, err := hashByName(k.Hash); err != nil {
			return refuse(ErrHash, field+".hash", "%q", k.Hash)
		}
		if k.Iterations < minIterations || k.Iterations > limits.Iterations {
			return refuse(ErrCost, field+".iterations", "%d, want %d to %d", k.Iterations, minIterations, limits.Iterations)
		}
	case Argon2i, Argon2id:
		if k.Parallel < 1 || k.Parallel > min(limits.Parallel, 255) {
			return refuse(ErrCost, field+".cpus", "%d, want 1 to %d", k.Parallel, min(limits.Parallel, 255))
		}
		if k.MemoryKiB < 8*k.Parallel || k.MemoryKiB > limits.MemoryKiB { // RFC 9106, section 3.1
			return refuse(ErrCost, field+".memory", "%d KiB, want %d to %d", k.MemoryKiB, 8*k.Parallel, limits.MemoryKiB)
		}
		if most := limits.Work / int64(k.MemoryKiB); k.Time < 1 || int64(k.Time) > most {
			return refuse(ErrCost, field+".time", "%d, want 1 to %d with this memory", k.Time, most)
		}
	default:
		return refuse(ErrUnsupported, field+".type", "%q", k.Type)
	}
	return nil
}

// derive stretches a passphrase. The KDF was checked.
func (k KDF) derive(passphrase, salt []byte, size int) ([]byte, error) {
	switch k.Type {
	case PBKDF2:
		h, err := hashByName(k.Hash)
		if err != nil {
			return nil, err
		}
		return pbkdf2.Key(h, string(passphrase), salt, k.Iterations, size)
	case Argon2i:
		return argon2.Key(passphrase, salt, uint32(k.Time), uint32(k.MemoryKiB), uint8(k.Parallel), uint32(size)), nil
	case Argon2id:
		return argon2.IDKey(passphrase, salt, uint32(k.Time), uint32(k.MemoryKiB), uint8(k.Parallel), uint32(size)), nil
	}
	return nil, refuse(ErrUnsupported, "kdf.type", "%q", k.Type)
}

// hashByName gives the hashes that cryptsetup's headers name. SHA-1, in PBKDF2 and in the
// anti-forensic splitter of old headers, is only ever read.
func hashByName(name string) (func() hash.Hash, error) {
	switch name {
	case "sha1":
		return sha1.New, nil
	case "sha224":
		return sha256.New224, nil
	case "sha256":
		return sha256.New, nil
	case "sha384":
		return sha512.New384, nil
	case "sha512":
		return sha512.New, nil
	}
	return nil, refuse(ErrHash, "hash", "%q", name)
}
