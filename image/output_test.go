package image

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/internal/testtool"
)

// blocks gives the bytes that a file takes on its file system.
func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestOutputs builds the same content in every shape: qemu-img sees the same disk in each, and Verify the same content.
func TestOutputs(t *testing.T) {
	qemuImg := testtool.Program(t, "qemu-img")
	path := fileSystemImage(t, "-b", "4096", "-O", readable)
	const size = 80 << 20
	var content Digest
	for name, c := range map[string]struct {
		out             Output
		least, most     int64 // of room that the file takes
		cluster, mapped int64 // what qemu-img tells
	}{
		"plain":    {out: Output{}, least: 3 << 20, most: 30 << 20, cluster: 64 << 10},
		"4k":       {out: Output{ClusterSize: 4 << 10}, least: 3 << 20, most: 30 << 20, cluster: 4 << 10},
		"2M":       {out: Output{ClusterSize: 2 << 20, Preallocation: PreallocationOff}, least: 3 << 20, most: 40 << 20, cluster: 2 << 20},
		"metadata": {out: Output{Preallocation: PreallocationMetadata}, least: 3 << 20, most: 30 << 20, cluster: 64 << 10},
		"falloc":   {out: Output{Preallocation: PreallocationFalloc}, least: size, most: size + 1<<20, cluster: 64 << 10},
		"full":     {out: Output{Preallocation: PreallocationFull, ClusterSize: 1 << 20}, least: size, most: size + 8<<20, cluster: 1 << 20},
		"raw":      {out: Output{Format: Raw}, least: 3 << 20, most: 30 << 20},
		"raw full": {out: Output{Format: Raw, Preallocation: PreallocationFull}, least: size, most: size + 1<<20},
	} {
		t.Run(name, func(t *testing.T) {
			image, made, err := build(t, Spec{Source: path, Size: size, Output: c.out}, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			format := "qcow2"
			if c.out.Format == Raw {
				format = "raw"
			} else {
				testtool.Output(t, qemuImg, "check", "-f", "qcow2", image)
			}
			var told struct {
				Format  string `json:"format"`
				Size    int64  `json:"virtual-size"`
				Cluster int64  `json:"cluster-size"`
			}
			if err := json.Unmarshal([]byte(testtool.Output(t, qemuImg, "info", "-f", format, "--output=json", image)), &told); err != nil {
				t.Fatal(err)
			}
			if told.Format != format || told.Size != size || told.Cluster != c.cluster {
				t.Errorf("qemu-img info tells %+v", told)
			}
			if room := blocks(t, image); room < c.least || room > c.most {
				t.Errorf("the file takes %d bytes, want %d to %d", room, c.least, c.most)
			}
			f, err := os.Open(image)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := Verify(t.Context(), f, made.FileSize, passphrase, Expected{ContentDigest: &made.ContentDigest}, nil); err != nil {
				t.Error(err)
			}
			if content == (Digest{}) {
				content = made.ContentDigest
			} else if content != made.ContentDigest {
				t.Errorf("another content digest than the shape before: %s, %s", made.ContentDigest, content)
			}
		})
	}
}

func TestFill(t *testing.T) {
	for name, source := range map[string]string{"file system": fileSystemImage(t, "-b", "4096", "-O", readable), "tree": archive(t)} {
		t.Run(name, func(t *testing.T) {
			image, made, err := build(t, Spec{Source: source, Size: 80<<20 + 1<<19, Output: Output{Fill: true}}, rand.Reader)
			if err != nil {
				t.Fatal(err)
			}
			if made.Written != made.PayloadSize {
				t.Errorf("%d bytes of %d are written", made.Written, made.PayloadSize)
			}
			data, err := os.ReadFile(image)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verify(t, data, passphrase, Expected{ContentDigest: &made.ContentDigest}); err != nil {
				t.Error(err)
			}
			raw := filepath.Join(t.TempDir(), "raw")
			testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-O", "raw", image, raw)
			disk, err := os.ReadFile(raw)
			if err != nil {
				t.Fatal(err)
			}
			payload := disk[partitionStart+16<<20:][:made.PayloadSize]
			for at := 0; at < len(payload); at += blockSize {
				if allZero(payload[at : at+blockSize]) {
					t.Fatalf("the payload's block at %d is zeros on the disk", at)
				}
			}
		})
	}
}

func TestOutputRefuses(t *testing.T) {
	good := Output{Format: Raw, Preallocation: PreallocationFull}
	if err := good.Validate(); err != nil {
		t.Fatalf("the good output: %v", err)
	}
	for name, spoil := range map[string]func(*Output){
		"format":        func(o *Output) { o.Format = "vmdk" },
		"preallocation": func(o *Output) { o.Preallocation = "some" },
		"raw clusters":  func(o *Output) { o.ClusterSize = 65536 },
		"raw metadata":  func(o *Output) { o.Preallocation = PreallocationMetadata },
	} {
		o := good
		if spoil(&o); o.Validate() == nil {
			t.Errorf("%s: passed", name)
		}
	}
	if _, _, err := build(t, Spec{Source: archive(t), Size: 64 << 20, Output: Output{ClusterSize: 12345}}, rand.Reader); err == nil {
		t.Error("a cluster size that is no power of two passed")
	}
}

// loop gives a block device of size bytes, full of noise.
func loop(t *testing.T, size int) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "device")
	if err := os.WriteFile(file, noise(9, size), 0o600); err != nil {
		t.Fatal(err)
	}
	return attach(t, file)
}

// attach gives a file's bytes as a block device.
func attach(t *testing.T, file string) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("loop devices take root")
	}
	losetup, err := exec.LookPath("losetup")
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(losetup, "--find", "--show", file).CombinedOutput()
	if err != nil {
		t.Skipf("no loop device here: %s", out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { exec.Command(losetup, "--detach", device).Run() })
	return device
}

// TestDevice writes to a block device that holds noise: afterwards it is byte for byte the disk that a raw file would be.
func TestDevice(t *testing.T) {
	const size = 80 << 20
	path := loop(t, size)
	spec := Spec{Source: fileSystemImage(t, "-b", "4096", "-O", readable), Output: Output{Format: Raw}}
	device, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer device.Close()
	random := func() io.Reader { return bytes.NewReader(noise(3, 1<<20)) }
	if _, err := Build(t.Context(), spec, passphrase, device, random(), nil); !errors.Is(err, ErrHolds) {
		t.Fatalf("over what the device holds: %v", err)
	}
	spec.Output.Force = true
	for name, spoil := range map[string]func(*Spec){
		"another size":  func(s *Spec) { s.Size = size - 1<<20 },
		"QCOW2":         func(s *Spec) { s.Output.Format = QCOW2 },
		"preallocation": func(s *Spec) { s.Output.Preallocation = PreallocationFull },
	} {
		bad := spec
		spoil(&bad)
		if _, err := Build(t.Context(), bad, passphrase, device, random(), nil); err == nil {
			t.Errorf("%s: passed", name)
		}
	}
	made, err := Build(t.Context(), spec, passphrase, device, random(), nil)
	if err != nil {
		t.Fatal(err)
	}
	// A build that is broken off leaves nothing that can be opened, not the disk of before either.
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := Build(ctx, spec, passphrase, device, random(), func(int64, int64) { cancel() }); !errors.Is(err, context.Canceled) {
		t.Fatalf("cancelled: %v", err)
	}
	if _, err := Open(t.Context(), device, size); err == nil {
		t.Error("a disk that was not finished can be opened")
	}
	if made, err = Build(t.Context(), spec, passphrase, device, random(), nil); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, size)
	if _, err := device.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	spec.Size, spec.Output.Force = size, false
	image, _, err := build(t, spec, random())
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the device holds something else than a raw file")
	}
	if made.DiskSize != size || made.FileSize != size {
		t.Errorf("made %+v", made)
	}
	if _, err := Verify(t.Context(), device, size, passphrase, Expected{ContentDigest: &made.ContentDigest}, nil); err != nil {
		t.Error(err)
	}
}
