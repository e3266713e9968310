package manysha

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"testing"
)

// TestAgainstStandardLibrary compares all numbers of messages, lengths and alignments that go one way or the other.
func TestAgainstStandardLibrary(t *testing.T) {
	random := rand.NewChaCha8([32]byte{1})
	draw := rand.New(random)
	inLanes := 0
	for _, n := range []int{0, 1, fewLanes - 1, fewLanes, 15, 16, 17, 24, 33} {
		for _, length := range []int{0, 1, 63, 64, 65, 128, 640, 4096, 65536} {
			messages, sums := make([][]byte, n), make([][sha256.Size]byte, n)
			for i := range messages {
				from := draw.IntN(64)
				messages[i] = make([]byte, from+length)[from:]
				random.Read(messages[i])
			}
			if n > 2 && draw.IntN(4) == 0 { // one of another length
				messages[2] = messages[2][:length/2]
			} else if hasLanes && n >= fewLanes && even(messages) {
				inLanes++
			}
			Sums(sums, messages)
			for i, m := range messages {
				if want := sha256.Sum256(m); sums[i] != want {
					t.Fatalf("message %d of %d, %d bytes: %x, want %x", i, n, len(m), sums[i], want)
				}
			}
		}
	}
	if hasLanes && inLanes < 10 {
		t.Errorf("only %d sets went through the lanes", inLanes)
	}
}

// TestPublished checks the example of a million letters a (FIPS 180-2, B.3), which are whole blocks, in each lane.
func TestPublished(t *testing.T) {
	million := make([]byte, 1_000_000) // 15625 blocks
	for i := range million {
		million[i] = 'a'
	}
	messages := make([][]byte, lanes)
	for i := range messages {
		messages[i] = million
	}
	sums := make([][sha256.Size]byte, lanes)
	Sums(sums, messages)
	for i, sum := range sums {
		if got := hex.EncodeToString(sum[:]); got != "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0" {
			t.Errorf("lane %d: %s", i, got)
		}
	}
}

func BenchmarkSums(b *testing.B) {
	for _, n := range []int{1, 4, 6, 8, 16} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			messages, sums := make([][]byte, n), make([][sha256.Size]byte, n)
			for i := range messages {
				messages[i] = make([]byte, 64<<10)
			}
			b.SetBytes(int64(n) * 64 << 10)
			for b.Loop() {
				Sums(sums, messages)
			}
		})
	}
}
