// EXPAND makes a round key in key from the one before last (also key) and t, the
// spread word of AESKEYGENASSIST (FIPS 197, 5.2).
#define EXPAND(key, t) \
	MOVOU  key, X3; \
	PSLLDQ $4, X3; \
	PXOR   X3, key; \
	PSLLDQ $4, X3; \
	PXOR   X3, key; \
	PSLLDQ $4, X3; \
	PXOR   X3, key; \
	PXOR   t, key

#define EXPAND_EVEN(rcon, at) \
	AESKEYGENASSIST $rcon, X1, X2; \
	PSHUFD          $0xff, X2, X2; \
	EXPAND(X0, X2); \
	MOVOU           X0, at(DI)

#define EXPAND_ODD(at) \
	AESKEYGENASSIST $0, X0, X2; \
	PSHUFD          $0xaa, X2, X2; \
	EXPAND(X1, X2); \
	MOVOU           X1, at(DI)

// TWEAK encrypts the sector number in R11 with the tweak key: the first tweak, in X0.
#define TWEAK \
	VMOVQ       R11, X0; \
	VPXOR       480(R8), X0, X0; \
	VAESENC     496(R8), X0, X0; \
	VAESENC     512(R8), X0, X0; \
	VAESENC     528(R8), X0, X0; \
	VAESENC     544(R8), X0, X0; \
	VAESENC     560(R8), X0, X0; \
	VAESENC     576(R8), X0, X0; \
	VAESENC     592(R8), X0, X0; \
	VAESENC     608(R8), X0, X0; \
	VAESENC     624(R8), X0, X0; \
	VAESENC     640(R8), X0, X0; \
	VAESENC     656(R8), X0, X0; \
	VAESENC     672(R8), X0, X0; \
	VAESENC     688(R8), X0, X0; \
	VAESENCLAST 704(R8), X0, X0

// ARGUMENTS loads the arguments that all sector functions share.
#define ARGUMENTS \
	MOVQ keys+0(FP), R8; \
	MOVQ dst+8(FP), DI; \
	MOVQ src+16(FP), SI; \
	MOVQ sectors+24(FP), R9; \
	MOVQ blocks+32(FP), R10; \
	MOVQ sector+40(FP), R11; \
	MOVQ step+48(FP), R12

// DOUBLE multiplies the tweak in X8 by x; X15 holds the words 0x87, 0, 1, 0.
#define DOUBLE \
	VPSRAD  $31, X8, X9; \
	VPSHUFD $0x13, X9, X9; \
	VPAND   X15, X9, X9; \
	VPADDQ  X8, X8, X8; \
	VPXOR   X9, X8, X8

#define LOAD(n, data) \
	VMOVDQU X8, (n*16)(SP); \
	VPXOR   (n*16)(SI), X8, data; \
	DOUBLE

#define STORE(n, data) \
	VPXOR   (n*16)(SP), data, data; \
	VMOVDQU data, (n*16)(DI)

#define ROUND8(op, at) \
	VMOVDQU at(R8), X14; \
	op      X14, X0, X0; \
	op      X14, X1, X1; \
	op      X14, X2, X2; \
	op      X14, X3, X3; \
	op      X14, X4, X4; \
	op      X14, X5, X5; \
	op      X14, X6, X6; \
	op      X14, X7, X7

#define ROUNDS8(base, op, last) \
	ROUND8(VPXOR, base); \
	ROUND8(op, (base+16)); \
	ROUND8(op, (base+32)); \
	ROUND8(op, (base+48)); \
	ROUND8(op, (base+64)); \
	ROUND8(op, (base+80)); \
	ROUND8(op, (base+96)); \
	ROUND8(op, (base+112)); \
	ROUND8(op, (base+128)); \
	ROUND8(op, (base+144)); \
	ROUND8(op, (base+160)); \
	ROUND8(op, (base+176)); \
	ROUND8(op, (base+192)); \
	ROUND8(op, (base+208)); \
	ROUND8(last, (base+224))

#define LOAD8 \
	LOAD(0, X0); \
	LOAD(1, X1); \
	LOAD(2, X2); \
	LOAD(3, X3); \
	LOAD(4, X4); \
	LOAD(5, X5); \
	LOAD(6, X6); \
	LOAD(7, X7)

#define STORE8 \
	STORE(0, X0); \
	STORE(1, X1); \
	STORE(2, X2); \
	STORE(3, X3); \
	STORE(4, X4); \
	STORE(5, X5); \
	STORE(6, X6); \
	STORE(7, X7)

// WIPE clears what the stack held of tweaks.
#define WIPE8 \
	VPXOR   X0, X0, X0; \
	VMOVDQU X0, 0(SP); \
	VMOVDQU X0, 16(SP); \
	VMOVDQU X0, 32(SP); \
	VMOVDQU X0, 48(SP); \
	VMOVDQU X0, 64(SP); \
	VMOVDQU X0, 80(SP); \
	VMOVDQU X0, 96(SP); \
	VMOVDQU X0, 112(SP)

#define KEYS(base) \
	VBROADCASTI32X4 (base+0)(R8), Z16; \
	VBROADCASTI32X4 (base+16)(R8), Z17; \
	VBROADCASTI32X4 (base+32)(R8), Z18; \
	VBROADCASTI32X4 (base+48)(R8), Z19; \
	VBROADCASTI32X4 (base+64)(R8), Z20; \
	VBROADCASTI32X4 (base+80)(R8), Z21; \
	VBROADCASTI32X4 (base+96)(R8), Z22; \
	VBROADCASTI32X4 (base+112)(R8), Z23; \
	VBROADCASTI32X4 (base+128)(R8), Z24; \
	VBROADCASTI32X4 (base+144)(R8), Z25; \
	VBROADCASTI32X4 (base+160)(R8), Z26; \
	VBROADCASTI32X4 (base+176)(R8), Z27; \
	VBROADCASTI32X4 (base+192)(R8), Z28; \
	VBROADCASTI32X4 (base+208)(R8), Z29; \
	VBROADCASTI32X4 (base+224)(R8), Z30

// NEXT multiplies the tweak in AX (low), BX (high) by x and puts it at the given place.
#define NEXT(at) \
	MOVQ BX, DX; \
	SARQ $63, DX; \
	ANDQ $0x87, DX; \
	ADDQ AX, AX; \
	ADCQ BX, BX; \
	XORQ DX, AX; \
	MOVQ AX, at(SP); \
	MOVQ BX, (at+8)(SP)

// SHIFT multiplies the tweaks of a register by x^(8·bytes): what leaves each lane at
// the top comes back times the polynomial.
#define SHIFT(bytes, from, to, t) \
	VPSRLDQ    $(16-bytes), from, t; \
	VPCLMULQDQ $0, Z31, t, t; \
	VPSLLDQ    $bytes, from, to; \
	VPXORQ     t, to, to

#define TWEAKS32 \
	TWEAK; \
	VMOVQ     X0, AX; \
	VPEXTRQ   $1, X0, BX; \
	MOVQ      AX, 0(SP); \
	MOVQ      BX, 8(SP); \
	NEXT(16); \
	NEXT(32); \
	NEXT(48); \
	NEXT(64); \
	NEXT(80); \
	NEXT(96); \
	NEXT(112); \
	VMOVDQU64 0(SP), Z8; \
	VMOVDQU64 64(SP), Z9; \
	SHIFT(1, Z8, Z10, Z0); \
	SHIFT(1, Z9, Z11, Z1); \
	SHIFT(1, Z10, Z12, Z0); \
	SHIFT(1, Z11, Z13, Z1); \
	SHIFT(1, Z12, Z14, Z0); \
	SHIFT(1, Z13, Z15, Z1)

#define LOAD32(n, tweak, data) \
	VPXORQ (n*64)(SI), tweak, data; \
	VPXORQ Z16, data, data

#define LOADS32 \
	LOAD32(0, Z8, Z0); \
	LOAD32(1, Z9, Z1); \
	LOAD32(2, Z10, Z2); \
	LOAD32(3, Z11, Z3); \
	LOAD32(4, Z12, Z4); \
	LOAD32(5, Z13, Z5); \
	LOAD32(6, Z14, Z6); \
	LOAD32(7, Z15, Z7)

#define ROUND32(op, key) \
	op key, Z0, Z0; \
	op key, Z1, Z1; \
	op key, Z2, Z2; \
	op key, Z3, Z3; \
	op key, Z4, Z4; \
	op key, Z5, Z5; \
	op key, Z6, Z6; \
	op key, Z7, Z7

#define ROUNDS32(op, last) \
	ROUND32(op, Z17); \
	ROUND32(op, Z18); \
	ROUND32(op, Z19); \
	ROUND32(op, Z20); \
	ROUND32(op, Z21); \
	ROUND32(op, Z22); \
	ROUND32(op, Z23); \
	ROUND32(op, Z24); \
	ROUND32(op, Z25); \
	ROUND32(op, Z26); \
	ROUND32(op, Z27); \
	ROUND32(op, Z28); \
	ROUND32(op, Z29); \
	ROUND32(last, Z30)

#define STORE32(n, tweak, data) \
	VPXORQ    tweak, data, data; \
	VMOVDQU64 data, (n*64)(DI); \
	SHIFT(4, tweak, tweak, data)

#define STORES32 \
	STORE32(0, Z8, Z0); \
	STORE32(1, Z9, Z1); \
	STORE32(2, Z10, Z2); \
	STORE32(3, Z11, Z3); \
	STORE32(4, Z12, Z4); \
	STORE32(5, Z13, Z5); \
	STORE32(6, Z14, Z6); \
	STORE32(7, Z15, Z7)

#define POLYNOMIAL \
	VBROADCASTI32X4 reduction<>(SB), Z31; \
	VPSLLDQ         $8, Z31, Z31; \
	VPSRLDQ         $8, Z31, Z31

// FORGET clears the round keys from the registers that VZEROALL leaves alone.
#define FORGET \
	VPXORQ Z16, Z16, Z16; \
	VPXORQ Z17, Z17, Z17; \
	VPXORQ Z18, Z18, Z18; \
	VPXORQ Z19, Z19, Z19; \
	VPXORQ Z20, Z20, Z20; \
	VPXORQ Z21, Z21, Z21; \
	VPXORQ Z22, Z22, Z22; \
	VPXORQ Z23, Z23, Z23; \
	VPXORQ Z24, Z24, Z24; \
	VPXORQ Z25, Z25, Z25; \
	VPXORQ Z26, Z26, Z26; \
	VPXORQ Z27, Z27, Z27; \
	VPXORQ Z28, Z28, Z28; \
	VPXORQ Z29, Z29, Z29; \
	VPXORQ Z30, Z30, Z30; \
	VZEROALL
