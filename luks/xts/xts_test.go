package xts

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"testing"
)

// TestPublished checks IEEE 1619-2018, annex B, vector 10: AES-256, one data unit of 512 bytes
// that counts 00 to ff twice, unit number ff.
func TestPublished(t *testing.T) {
	key, _ := hex.DecodeString("2718281828459045235360287471352662497757247093699959574966967627" +
		"3141592653589793238462643383279502884197169399375105820974944592")
	const first = "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b"
	plain := make([]byte, 512)
	for i := range plain {
		plain[i] = byte(i)
	}
	eachPath(t, key, func(t *testing.T, c *Cipher) {
		got := make([]byte, 512)
		c.Encrypt(got, plain, 0xff, 512, 1)
		if hex.EncodeToString(got[:32]) != first {
			t.Errorf("ciphertext begins %x, want %s", got[:32], first)
		}
		c.Decrypt(got, got, 0xff, 512, 1)
		if !bytes.Equal(got, plain) {
			t.Error("decryption does not give the plaintext back")
		}
	})
}

// TestAgainstXCrypto compares every path with x/crypto's on random keys, sizes,
// alignments and sector numbers.
func TestAgainstXCrypto(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	fill := func(b []byte) []byte {
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		return b
	}
	compared := 0
	for range 200 {
		key := fill(make([]byte, 64))
		reference, err := newSlow(key)
		if err != nil {
			t.Fatal(err)
		}
		size := []int{512, 1024, 1536, 2048, 4096}[random.IntN(5)]
		step := uint64(size / 512)
		sector := random.Uint64() >> random.IntN(64)
		from, to := random.IntN(64), random.IntN(64)
		plain := fill(make([]byte, from+size*random.IntN(10)))[from:]
		want := make([]byte, len(plain))
		reference.Encrypt(want, plain, sector, size, step)
		eachPath(t, key, func(t *testing.T, c *Cipher) {
			got := make([]byte, to+len(plain)+64)
			c.Encrypt(got[to:], plain, sector, size, step)
			if !bytes.Equal(got[to:to+len(plain)], want) {
				t.Errorf("encrypt %d bytes in sectors of %d at %d differs", len(plain), size, sector)
			}
			if !bytes.Equal(got[:to], make([]byte, to)) || !bytes.Equal(got[to+len(plain):], make([]byte, 64)) {
				t.Error("wrote outside its destination")
			}
			c.Decrypt(got[to:], want, sector, size, step)
			if !bytes.Equal(got[to:to+len(plain)], plain) {
				t.Errorf("decrypt %d bytes in sectors of %d at %d differs", len(plain), size, sector)
			}
			compared++
		})
	}
	if compared < 200 {
		t.Errorf("only %d comparisons", compared)
	}
}

func TestKeys(t *testing.T) {
	key := make([]byte, 64)
	for _, bad := range [][]byte{nil, key[:16], key[:48], key} { // the last has equal halves
		if c, err := New(bad); !errors.Is(err, ErrKeySize) || c != nil {
			t.Errorf("a key of %d bytes: %v", len(bad), err)
		}
	}
	key[0] = 1
	if _, err := New(key[:32]); err != nil {
		t.Errorf("AES-128: %v", err)
	}
}

func BenchmarkEncrypt(b *testing.B) {
	key := make([]byte, 64)
	key[0] = 1
	data := make([]byte, 1<<20)
	eachPath(b, key, func(b *testing.B, c *Cipher) {
		b.SetBytes(int64(len(data)))
		for b.Loop() {
			c.Encrypt(data, data, 0, 4096, 8)
		}
	})
}

// eachPath runs f with each implementation that this processor has.
func eachPath[T interface {
	testing.TB
	Run(string, func(T)) bool
}](t T, key []byte, f func(T, *Cipher)) {
	t.Helper()
	slow, err := newSlow(key)
	if err != nil {
		t.Fatal(err)
	}
	t.Run("x-crypto", func(t T) { f(t, slow) })
	for _, path := range fastPaths() {
		t.Run(path.name, func(t T) {
			defer path.choose()()
			c, err := New(key)
			if err != nil {
				t.Fatal(err)
			}
			if c.fast == nil {
				t.Fatal("not the fast path")
			}
			f(t, c)
		})
	}
}
