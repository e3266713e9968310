package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/qcow2"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// benchSize is how much random data the benchmarks encrypt: SEALBOOT_BENCH_MIB, 256 if not set.
// Temporary files go where TMPDIR points: a file system in memory leaves the disk out of it.
func benchSize(b *testing.B) int64 {
	b.Helper()
	size := int64(256 << 20)
	if text := os.Getenv("SEALBOOT_BENCH_MIB"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			b.Fatal(err)
		}
		size = n << 20
	}
	b.SetBytes(size)
	return size
}

// randomFile makes a folder with one file of random data.
func randomFile(b *testing.B, size int64) (dir, file string) {
	b.Helper()
	dir = b.TempDir()
	file = filepath.Join(dir, "random")
	f, err := os.Create(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for left := size; left > 0; left -= 16 << 20 {
		if _, err := f.Write(noise(byte(left>>24), int(min(left, 16<<20)))); err != nil {
			b.Fatal(err)
		}
	}
	return dir, file
}

func benchBuild(b *testing.B, spec Spec) string {
	b.Helper()
	name := filepath.Join(b.TempDir(), "disk.qcow2")
	b.ResetTimer()
	for b.Loop() {
		out, err := os.Create(name)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Build(b.Context(), spec, passphrase, out, rand.Reader, nil); err != nil {
			b.Fatal(err)
		}
		out.Close()
	}
	return name
}

// BenchmarkBuildFolder encrypts a folder with one file of random data to QCOW2.
func BenchmarkBuildFolder(b *testing.B) {
	size := benchSize(b)
	dir, _ := randomFile(b, size)
	benchBuild(b, Spec{Source: dir, Size: size + size/8 + 128<<20})
}

// BenchmarkBuildFileSystem encrypts an ext4 image with the same file in it.
func BenchmarkBuildFileSystem(b *testing.B) {
	size := benchSize(b)
	benchBuild(b, Spec{Source: randomFileSystem(b, size)})
}

func randomFileSystem(b *testing.B, size int64) string {
	b.Helper()
	dir, _ := randomFile(b, size)
	path := filepath.Join(b.TempDir(), "root.ext4")
	testtool.Output(b, testtool.Program(b, "mke2fs"), "-q", "-t", "ext4", "-b", "4096", "-O", readable, "-d", dir, path, strconv.FormatInt((size+size/8)>>20+64, 10)+"M")
	return path
}

// BenchmarkQEMUConvert is what a user would otherwise take: qemu-img convert on the same file,
// to a raw LUKS1 device and to QCOW2 with LUKS inside, with the cheapest key slot.
func BenchmarkQEMUConvert(b *testing.B) {
	for name, options := range map[string][]string{
		"luks":  {"-O", "luks", "-o", "key-secret=s,iter-time=10"},
		"qcow2": {"-O", "qcow2", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10"},
	} {
		b.Run(name, func(b *testing.B) {
			_, file := randomFile(b, benchSize(b))
			dir := b.TempDir()
			key, out := filepath.Join(dir, "key"), filepath.Join(dir, "out")
			if err := os.WriteFile(key, passphrase, 0o600); err != nil {
				b.Fatal(err)
			}
			args := append([]string{"convert", "--object", "secret,id=s,file=" + key, "-f", "raw"}, options...)
			qemuImg := testtool.Program(b, "qemu-img")
			for b.Loop() {
				testtool.Output(b, qemuImg, append(args, file, out)...)
				os.Remove(out)
			}
		})
	}
}

// BenchmarkVerify reads such a disk again.
func BenchmarkVerify(b *testing.B) {
	size := benchSize(b)
	dir, _ := randomFile(b, size)
	name := filepath.Join(b.TempDir(), "disk.qcow2")
	out, err := os.Create(name)
	if err != nil {
		b.Fatal(err)
	}
	defer out.Close()
	made, err := Build(b.Context(), Spec{Source: dir, Size: size + size/8 + 128<<20}, passphrase, out, rand.Reader, nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Verify(b.Context(), out, made.FileSize, passphrase, Expected{ContentDigest: &made.ContentDigest}, nil); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkMemory builds a disk of 16 GiB, nearly full, and tells the most memory that the
// process took. What is written is thrown away.
func BenchmarkMemory(b *testing.B) {
	const size = 16 << 30
	file := source.Entry{Path: "/file", Type: source.Regular, Mode: 0o644, Size: 15 << 30}
	spec := Spec{Source: "-", Size: size}.withDefaults()
	b.SetBytes(file.Size)
	for b.Loop() {
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil { // resets VmHWM
			b.Fatal(err)
		}
		disk, err := qcow2.NewWriter(nothing{}, size)
		if err != nil {
			b.Fatal(err)
		}
		p, _, cipher, _ := testPayload(b, b.Context(), 1)
		p.Close(nil)
		p = newPayload(b.Context(), disk, 17<<20, payloadSize(size, 16<<20), cipher, 2)
		one := &tree{fixed{file}}
		_, written, err := p.Close(one.write(b.Context(), spec, "", p, p.size, func(int64) {}))
		if err != nil || written < file.Size {
			b.Fatal(written, err)
		}
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, after, _ := strings.Cut(string(status), "VmHWM:")
	kib, err := strconv.Atoi(strings.Fields(after)[0])
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(kib)/1024, "MiB-peak")
}

// fixed is a source of one file.
type fixed struct{ file source.Entry }

func (s fixed) Walk(_ context.Context, f source.WalkFunc) error { return f(s.file, ones{}) }

// ones is content without end that is not zeros.
type ones struct{}

func (ones) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 1
	}
	return len(p), nil
}

// nothing is a file that keeps nothing.
type nothing struct{ nowhere }

func (nothing) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }
func (nothing) Truncate(int64) error                  { return nil }

// BenchmarkSeal is the workers' part alone: hash and encrypt 1 MiB.
func BenchmarkSeal(b *testing.B) {
	p, _, cipher, _ := testPayload(b, b.Context(), 1)
	defer p.Close(nil)
	data := bytes.Repeat([]byte("sealboot"), chunkSize/8)
	b.Run("hash", func(b *testing.B) {
		b.SetBytes(chunkSize)
		for b.Loop() {
			newLeaf(data, 0xffff)
		}
	})
	b.Run("encrypt", func(b *testing.B) {
		b.SetBytes(chunkSize)
		for b.Loop() {
			if err := cipher.Encrypt(data, data, 0); err != nil {
				b.Fatal(err)
			}
		}
	})
}
