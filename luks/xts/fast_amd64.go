package xts

import "golang.org/x/sys/cpu"

// fastCipher holds the round keys: to encrypt, to decrypt, and the tweak key's. The
// assembly relies on this layout.
type fastCipher struct {
	enc, dec, tweak [240]byte
}

var (
	hasAESNI = cpu.X86.HasAES && cpu.X86.HasAVX
	hasVAES  = hasAESNI && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ &&
		cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VAES && cpu.X86.HasAVX512VPCLMULQDQ
)

//go:noescape
func expandKey(keys *[240]byte, key *byte)

//go:noescape
func invertKey(dec, enc *[240]byte)

//go:noescape
func encryptAESNI(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)

//go:noescape
func decryptAESNI(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)

//go:noescape
func encryptVAES(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)

//go:noescape
func decryptVAES(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)

// newFast returns nil where there is no fast path for this processor and key.
func newFast(key []byte) *fastCipher {
	if !hasAESNI || len(key) != 64 {
		return nil
	}
	c := new(fastCipher)
	expandKey(&c.enc, &key[0])
	invertKey(&c.dec, &c.enc)
	expandKey(&c.tweak, &key[32])
	return c
}

func (c *fastCipher) encrypt(dst, src []byte, sector uint64, sectorSize int, step uint64) {
	if len(src) == 0 {
		return
	}
	if hasVAES {
		encryptVAES(c, &dst[0], &src[0], len(src)/sectorSize, sectorSize/16, sector, step)
	} else {
		encryptAESNI(c, &dst[0], &src[0], len(src)/sectorSize, sectorSize/16, sector, step)
	}
}

func (c *fastCipher) decrypt(dst, src []byte, sector uint64, sectorSize int, step uint64) {
	if len(src) == 0 {
		return
	}
	if hasVAES {
		decryptVAES(c, &dst[0], &src[0], len(src)/sectorSize, sectorSize/16, sector, step)
	} else {
		decryptAESNI(c, &dst[0], &src[0], len(src)/sectorSize, sectorSize/16, sector, step)
	}
}
