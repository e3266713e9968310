package ext4

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// discard is an image that keeps nothing.
type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

// writeMany makes a distribution of a size: small files mostly, in folders of 50.
func writeMany(to io.WriterAt, files, bytesEach int) error {
	w, err := NewWriter(to, testOptions(16<<30))
	if err != nil {
		return err
	}
	content := bytes.NewReader(noise(bytesEach, 1))
	for i := range files {
		content.Reset(noiseBytes[:bytesEach])
		e := source.Entry{Path: fmt.Sprintf("/usr/share/package-%d/file-number-%d", i/50, i), Type: source.Regular, Mode: 0o644, Size: int64(bytesEach), ModTime: at(int64(i), 0)}
		if err := w.Add(e, content); err != nil {
			return err
		}
	}
	return w.Close()
}

var noiseBytes = noise(1<<20, 1)

func BenchmarkWriter(b *testing.B) {
	const files, each = 70000, 24000
	b.SetBytes(files * each)
	b.ReportAllocs()
	for b.Loop() {
		if err := writeMany(discard{}, files, each); err != nil {
			b.Fatal(err)
		}
	}
}

// TestMemory holds the writer to its promise: memory grows with the number of files alone.
func TestMemory(t *testing.T) {
	const most = 64 << 20 // for 70,000 files
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	w := must(NewWriter(discard{}, testOptions(16<<30)))
	content := bytes.NewReader(nil)
	for i := range 70000 {
		content.Reset(noiseBytes[:24000])
		e := source.Entry{Path: fmt.Sprintf("/usr/share/package-%d/file-number-%d", i/50, i), Type: source.Regular, Size: 24000}
		if err := w.Add(e, content); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if used := int64(after.HeapAlloc) - int64(before.HeapAlloc); used > most {
		t.Errorf("%d bytes for 70,000 files", used)
	} else {
		t.Logf("%d bytes for 70,000 files", used)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
