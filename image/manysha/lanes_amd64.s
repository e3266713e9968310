#include "textflag.h"

// SHA-256 (FIPS 180-4, 6.2.2) of sixteen messages, one in each 32-bit lane. Z0-Z7 hold the working variables a-h of the
// block, Z16-Z31 the last sixteen words of the message schedule, Z8-Z13 what is needed at once.

// SUM puts the exclusive or of x rotated by three counts in Z8.
#define SUM(x, r1, r2, r3) \
	VPRORD     $r1, x, Z8; \
	VPRORD     $r2, x, Z9; \
	VPRORD     $r3, x, Z10; \
	VPTERNLOGD $0x96, Z10, Z9, Z8

// SIGMA is the same with a shift for the last rotation.
#define SIGMA(x, r1, r2, shift) \
	VPRORD     $r1, x, Z8; \
	VPRORD     $r2, x, Z9; \
	VPSRLD     $shift, x, Z10; \
	VPTERNLOGD $0x96, Z10, Z9, Z8

// ROUND is one step with schedule word w and constant k. Afterwards h is the new a, and d the new e. Ch and
// Maj are the truth tables ca and e8. What an addition waits for longest comes last, so that from one e to the next there are
// three instructions.
#define ROUND(a, b, c, d, e, f, g, h, w, k) \
	VPADDD.BCST (k*4)(R8), h, h; \
	VPADDD      w, h, h; \
	VMOVDQA64   e, Z11; \
	VPTERNLOGD  $0xca, g, f, Z11; \
	SUM(e, 6, 11, 25); \
	VPADDD      h, d, d; \
	VPADDD      Z11, h, h; \
	VPADDD      Z11, d, d; \
	VPADDD      Z8, h, h; \
	VPADDD      Z8, d, d; \
	VMOVDQA64   a, Z11; \
	VPTERNLOGD  $0xe8, c, b, Z11; \
	SUM(a, 2, 13, 22); \
	VPADDD      Z11, h, h; \
	VPADDD      Z8, h, h

// SCHEDULE makes the next word in place of the one sixteen before.
#define SCHEDULE(w, w15, w7, w2) \
	SIGMA(w15, 7, 18, 3); \
	VPADDD w7, w, w; \
	VPADDD Z8, w, w; \
	SIGMA(w2, 17, 19, 10); \
	VPADDD Z8, w, w

#define LOAD(lane, w) \
	MOVQ      (lane*8)(SI), AX; \
	VMOVDQU64 (AX)(DX*1), w; \
	VPSHUFB   Z12, w, w

// PAIRS and FOURS transpose squares of four words in four registers: w0 gets the first word of each of them.
#define PAIRS(w0, w1) \
	VPUNPCKLDQ w1, w0, Z8; \
	VPUNPCKHDQ w1, w0, w1; \
	VMOVDQA64  Z8, w0

#define FOURS(w0, w1, w2, w3) \
	PAIRS(w0, w1); \
	PAIRS(w2, w3); \
	VPUNPCKLQDQ w2, w0, Z8; \
	VPUNPCKHQDQ w2, w0, Z9; \
	VPUNPCKLQDQ w3, w1, w2; \
	VPUNPCKHQDQ w3, w1, w3; \
	VMOVDQA64   Z8, w0; \
	VMOVDQA64   Z9, w1

// SQUARES transposes the square of such squares.
#define SQUARES(w0, w4, w8, w12) \
	VSHUFI32X4 $0x44, w4, w0, Z8; \
	VSHUFI32X4 $0xee, w4, w0, Z9; \
	VSHUFI32X4 $0x44, w12, w8, Z10; \
	VSHUFI32X4 $0xee, w12, w8, Z11; \
	VSHUFI32X4 $0x88, Z10, Z8, w0; \
	VSHUFI32X4 $0xdd, Z10, Z8, w4; \
	VSHUFI32X4 $0x88, Z11, Z9, w8; \
	VSHUFI32X4 $0xdd, Z11, Z9, w12

// swap turns the bytes of each word around.
DATA swap<>+0(SB)/8, $0x0405060700010203
DATA swap<>+8(SB)/8, $0x0c0d0e0f08090a0b
GLOBL swap<>(SB), RODATA|NOPTR, $16

// func blocks(s *state, at *[lanes]*byte, constants *[64]uint32, n int)
TEXT ·blocks(SB), NOSPLIT, $0-32
	MOVQ            s+0(FP), DI
	MOVQ            at+8(FP), SI
	MOVQ            constants+16(FP), R9
	MOVQ            n+24(FP), CX
	XORQ            DX, DX
	VBROADCASTI32X4 swap<>(SB), Z12
	VMOVDQU64       (0*64)(DI), Z0
	VMOVDQU64       (1*64)(DI), Z1
	VMOVDQU64       (2*64)(DI), Z2
	VMOVDQU64       (3*64)(DI), Z3
	VMOVDQU64       (4*64)(DI), Z4
	VMOVDQU64       (5*64)(DI), Z5
	VMOVDQU64       (6*64)(DI), Z6
	VMOVDQU64       (7*64)(DI), Z7

block:
	TESTQ CX, CX
	JZ    done
	LOAD(0, Z16)
	LOAD(1, Z17)
	LOAD(2, Z18)
	LOAD(3, Z19)
	LOAD(4, Z20)
	LOAD(5, Z21)
	LOAD(6, Z22)
	LOAD(7, Z23)
	LOAD(8, Z24)
	LOAD(9, Z25)
	LOAD(10, Z26)
	LOAD(11, Z27)
	LOAD(12, Z28)
	LOAD(13, Z29)
	LOAD(14, Z30)
	LOAD(15, Z31)
	FOURS(Z16, Z17, Z18, Z19)
	FOURS(Z20, Z21, Z22, Z23)
	FOURS(Z24, Z25, Z26, Z27)
	FOURS(Z28, Z29, Z30, Z31)
	SQUARES(Z16, Z20, Z24, Z28)
	SQUARES(Z17, Z21, Z25, Z29)
	SQUARES(Z18, Z22, Z26, Z30)
	SQUARES(Z19, Z23, Z27, Z31)
	MOVQ R9, R8
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 1)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 2)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 3)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 4)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 5)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 6)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 7)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 8)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 9)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 10)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 11)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 12)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 13)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 14)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 15)
	MOVQ $3, BX

sixteen:
	ADDQ $64, R8
	SCHEDULE(Z16, Z17, Z25, Z30)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z16, 0)
	SCHEDULE(Z17, Z18, Z26, Z31)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z17, 1)
	SCHEDULE(Z18, Z19, Z27, Z16)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z18, 2)
	SCHEDULE(Z19, Z20, Z28, Z17)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z19, 3)
	SCHEDULE(Z20, Z21, Z29, Z18)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z20, 4)
	SCHEDULE(Z21, Z22, Z30, Z19)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z21, 5)
	SCHEDULE(Z22, Z23, Z31, Z20)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z22, 6)
	SCHEDULE(Z23, Z24, Z16, Z21)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z23, 7)
	SCHEDULE(Z24, Z25, Z17, Z22)
	ROUND(Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z24, 8)
	SCHEDULE(Z25, Z26, Z18, Z23)
	ROUND(Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z25, 9)
	SCHEDULE(Z26, Z27, Z19, Z24)
	ROUND(Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z5, Z26, 10)
	SCHEDULE(Z27, Z28, Z20, Z25)
	ROUND(Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z4, Z27, 11)
	SCHEDULE(Z28, Z29, Z21, Z26)
	ROUND(Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z3, Z28, 12)
	SCHEDULE(Z29, Z30, Z22, Z27)
	ROUND(Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z2, Z29, 13)
	SCHEDULE(Z30, Z31, Z23, Z28)
	ROUND(Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z1, Z30, 14)
	SCHEDULE(Z31, Z16, Z24, Z29)
	ROUND(Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z0, Z31, 15)
	DECQ BX
	JNZ  sixteen

	VPADDD    (0*64)(DI), Z0, Z0
	VMOVDQU64 Z0, (0*64)(DI)
	VPADDD    (1*64)(DI), Z1, Z1
	VMOVDQU64 Z1, (1*64)(DI)
	VPADDD    (2*64)(DI), Z2, Z2
	VMOVDQU64 Z2, (2*64)(DI)
	VPADDD    (3*64)(DI), Z3, Z3
	VMOVDQU64 Z3, (3*64)(DI)
	VPADDD    (4*64)(DI), Z4, Z4
	VMOVDQU64 Z4, (4*64)(DI)
	VPADDD    (5*64)(DI), Z5, Z5
	VMOVDQU64 Z5, (5*64)(DI)
	VPADDD    (6*64)(DI), Z6, Z6
	VMOVDQU64 Z6, (6*64)(DI)
	VPADDD    (7*64)(DI), Z7, Z7
	VMOVDQU64 Z7, (7*64)(DI)
	ADDQ $64, DX
	DECQ CX
	JMP  block

done:
	VZEROUPPER
	RET
