package fsystest

import (
	"os"
	"testing"
)

// Overwrite fills an image with noise wherever allocated says that nothing counts, and gives how many bytes do.
func Overwrite(t testing.TB, image string, allocated func(func(offset, length int64) error) error) int64 {
	t.Helper()
	info, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	type span struct{ off, end int64 }
	var free []span
	next, used := int64(0), int64(0)
	err = allocated(func(off, n int64) error {
		if off < next || n <= 0 || off+n > info.Size() || next > 0 && off == next {
			t.Errorf("%d bytes at %d, after %d", n, off, next)
		}
		if off > next {
			free = append(free, span{next, off})
		}
		next, used = off+n, used+n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	free = append(free, span{next, info.Size()})
	file, err := os.OpenFile(image, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	noise := Noise(1<<20, 7)
	for _, s := range free {
		for at := s.off; at < s.end; at += int64(len(noise)) {
			if _, err := file.WriteAt(noise[:min(int64(len(noise)), s.end-at)], at); err != nil {
				t.Fatal(err)
			}
		}
	}
	return used
}
