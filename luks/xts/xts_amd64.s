#include "textflag.h"
#include "xts_amd64.h"

// AES-256-XTS (IEEE 1619-2018) over sectors of 32·n blocks. The schedule that all
// functions take is `type fastCipher`: 15 round keys to encrypt at 0, 15 to decrypt at
// 240, 15 of the tweak key at 480.

// func expandKey(keys *[240]byte, key *byte)
TEXT ·expandKey(SB), NOSPLIT, $0-16
	MOVQ  keys+0(FP), DI
	MOVQ  key+8(FP), SI
	MOVOU 0(SI), X0
	MOVOU 16(SI), X1
	MOVOU X0, 0(DI)
	MOVOU X1, 16(DI)
	EXPAND_EVEN(0x01, 32)
	EXPAND_ODD(48)
	EXPAND_EVEN(0x02, 64)
	EXPAND_ODD(80)
	EXPAND_EVEN(0x04, 96)
	EXPAND_ODD(112)
	EXPAND_EVEN(0x08, 128)
	EXPAND_ODD(144)
	EXPAND_EVEN(0x10, 160)
	EXPAND_ODD(176)
	EXPAND_EVEN(0x20, 192)
	EXPAND_ODD(208)
	EXPAND_EVEN(0x40, 224)
	PXOR  X0, X0
	PXOR  X1, X1
	PXOR  X2, X2
	PXOR  X3, X3
	RET

// func invertKey(dec, enc *[240]byte)
TEXT ·invertKey(SB), NOSPLIT, $0-16
	MOVQ  dec+0(FP), DI
	MOVQ  enc+8(FP), SI
	ADDQ  $224, SI
	MOVOU 0(SI), X0
	MOVOU X0, 0(DI)
	MOVQ  $13, CX

inner:
	SUBQ   $16, SI
	ADDQ   $16, DI
	MOVOU  0(SI), X0
	AESIMC X0, X0
	MOVOU  X0, 0(DI)
	DECQ   CX
	JNZ    inner
	MOVOU  -16(SI), X0
	MOVOU  X0, 16(DI)
	PXOR   X0, X0
	RET

DATA reduction<>+0(SB)/4, $0x87
DATA reduction<>+4(SB)/4, $0
DATA reduction<>+8(SB)/4, $1
DATA reduction<>+12(SB)/4, $0
GLOBL reduction<>(SB), RODATA|NOPTR, $16

// func encryptAESNI(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)
TEXT ·encryptAESNI(SB), 0, $128-56
	ARGUMENTS
	VMOVDQU reduction<>(SB), X15

sector:
	TWEAK
	VMOVDQA X0, X8
	MOVQ    R10, CX

blocks:
	LOAD8
	ROUNDS8(0, VAESENC, VAESENCLAST)
	STORE8
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $8, CX
	JNZ  blocks
	ADDQ R12, R11
	DECQ R9
	JNZ  sector
	WIPE8
	RET

// func decryptAESNI(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)
TEXT ·decryptAESNI(SB), 0, $128-56
	ARGUMENTS
	VMOVDQU reduction<>(SB), X15

sector:
	TWEAK
	VMOVDQA X0, X8
	MOVQ    R10, CX

blocks:
	LOAD8
	ROUNDS8(240, VAESDEC, VAESDECLAST)
	STORE8
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $8, CX
	JNZ  blocks
	ADDQ R12, R11
	DECQ R9
	JNZ  sector
	WIPE8
	RET

// The VAES path: four blocks a register. Z0–Z7 data, Z8–Z15 tweaks, Z16–Z30 round
// keys, Z31 the reduction polynomial in each lane.

// func encryptVAES(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)
TEXT ·encryptVAES(SB), 0, $128-56
	ARGUMENTS
	POLYNOMIAL
	KEYS(0)

sector:
	TWEAKS32
	MOVQ R10, CX

blocks:
	LOADS32
	ROUNDS32(VAESENC, VAESENCLAST)
	STORES32
	ADDQ $512, SI
	ADDQ $512, DI
	SUBQ $32, CX
	JNZ  blocks
	ADDQ R12, R11
	DECQ R9
	JNZ  sector
	WIPE8
	FORGET
	RET

// func decryptVAES(keys *fastCipher, dst, src *byte, sectors, blocks int, sector, step uint64)
TEXT ·decryptVAES(SB), 0, $128-56
	ARGUMENTS
	POLYNOMIAL
	KEYS(240)

sector:
	TWEAKS32
	MOVQ R10, CX

blocks:
	LOADS32
	ROUNDS32(VAESDEC, VAESDECLAST)
	STORES32
	ADDQ $512, SI
	ADDQ $512, DI
	SUBQ $32, CX
	JNZ  blocks
	ADDQ R12, R11
	DECQ R9
	JNZ  sector
	WIPE8
	FORGET
	RET
