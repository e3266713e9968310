package ext4

import "math/bits"

// Versions of the hash over names (dx_root_info.hash_version, s_def_hash_version). The upper
// three take bytes as unsigned; s_flags selects them for a whole file system.
const (
	hashLegacy = iota
	hashHalfMD4
	hashTEA
	hashLegacyUnsigned
	hashHalfMD4Unsigned
	hashTEAUnsigned
)

// nameHash gives the hash by which a name is found in a folder's tree, and the minor hash
// that orders names of equal hash (Linux, fs/ext4/hash.c: ext4fs_dirhash).
func nameHash(name string, version uint8, seed [4]uint32) (hash, minor uint32) {
	unsigned := version >= hashLegacyUnsigned
	state := [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}
	if seed != [4]uint32{} {
		state = seed
	}
	switch version % hashLegacyUnsigned {
	case hashLegacy:
		hash = legacyHash(name, unsigned)
	case hashHalfMD4:
		for rest := name; ; rest = rest[32:] {
			var in [8]uint32
			hashWords(rest, in[:], unsigned)
			halfMD4(&state, &in)
			if len(rest) <= 32 {
				break
			}
		}
		hash, minor = state[1], state[2]
	case hashTEA:
		for rest := name; ; rest = rest[16:] {
			var in [4]uint32
			hashWords(rest, in[:], unsigned)
			tea(&state, &in)
			if len(rest) <= 16 {
				break
			}
		}
		hash, minor = state[0], state[1]
	}
	hash &^= 1
	const endOfFolder = 0x7fffffff << 1 // EXT4_HTREE_EOF_32BIT
	if hash == endOfFolder {
		hash -= 2
	}
	return hash, minor
}

func hashByte(c byte, unsigned bool) uint32 {
	if unsigned {
		return uint32(c)
	}
	return uint32(int32(int8(c)))
}

// hashWords packs the beginning of a name into words (str2hashbuf_signed and _unsigned).
func hashWords(name string, words []uint32, unsigned bool) {
	pad := uint32(len(name)) | uint32(len(name))<<8
	pad |= pad << 16
	for i := range words {
		value := pad
		for j := 4 * i; j < min(4*i+4, len(name)); j++ {
			value = hashByte(name[j], unsigned) + value<<8
		}
		words[i] = value
	}
}

func legacyHash(name string, unsigned bool) uint32 {
	hash0, hash1 := uint32(0x12a3fe2d), uint32(0x37abe8f9)
	for i := range len(name) {
		hash := hash1 + (hash0 ^ hashByte(name[i], unsigned)*7152373)
		if hash&0x80000000 != 0 {
			hash -= 0x7fffffff
		}
		hash0, hash1 = hash, hash0
	}
	return hash0 << 1
}

// halfMD4 is MD4 with half its rounds (lib: half_md4_transform).
func halfMD4(state *[4]uint32, in *[8]uint32) {
	a, b, c, d := state[0], state[1], state[2], state[3]
	f := func(x, y, z uint32) uint32 { return z ^ x&(y^z) }
	g := func(x, y, z uint32) uint32 { return x&y + (x^y)&z }
	h := func(x, y, z uint32) uint32 { return x ^ y ^ z }
	for _, round := range []struct {
		mix    func(x, y, z uint32) uint32
		add    uint32
		words  [8]int
		shifts [4]int
	}{
		{f, 0, [8]int{0, 1, 2, 3, 4, 5, 6, 7}, [4]int{3, 7, 11, 19}},
		{g, 0x5a827999, [8]int{1, 3, 5, 7, 0, 2, 4, 6}, [4]int{3, 5, 9, 13}},
		{h, 0x6ed9eba1, [8]int{3, 7, 2, 6, 1, 5, 0, 4}, [4]int{3, 9, 11, 15}},
	} {
		for i, word := range round.words {
			a = bits.RotateLeft32(a+round.mix(b, c, d)+in[word]+round.add, round.shifts[i%4])
			a, b, c, d = d, a, b, c
		}
	}
	state[0] += a
	state[1] += b
	state[2] += c
	state[3] += d
}

// tea is the Tiny Encryption Algorithm as a hash (TEA_transform).
func tea(state *[4]uint32, in *[4]uint32) {
	const delta, rounds = 0x9e3779b9, 16
	b0, b1, sum := state[0], state[1], uint32(0)
	for range rounds {
		sum += delta
		b0 += (b1<<4 + in[0]) ^ (b1 + sum) ^ (b1>>5 + in[1])
		b1 += (b0<<4 + in[2]) ^ (b0 + sum) ^ (b0>>5 + in[3])
	}
	state[0] += b0
	state[1] += b1
}
