package grub_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/grub"
	"github.com/sealboot/sealboot/image/ext4"
	"github.com/sealboot/sealboot/image/gpt"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

var (
	passphraseGUID = guid.MustParse("736869e5-84f0-4973-92ec-06879ce3da0b")
	pinGUID        = guid.MustParse("5ea1b007-6c75-4b73-8d31-5c0a1f5e9d21")
	rootType       = guid.MustParse("4f68bce3-e8cd-4db1-96e7-fbcaf984b709") // x86-64 root, Discoverable Partitions Specification
)

// tools finds GRUB's tools, fetched or the machine's.
func tools(t testing.TB) grub.Tools {
	t.Helper()
	found, err := grub.FindTools(filepath.Join(testtool.Deps(), "root"))
	if errors.Is(err, grub.ErrTools) {
		testtool.Missing(t, "GRUB 2.12 for x86_64-efi")
	}
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func build(t testing.TB, config grub.Config) []byte {
	t.Helper()
	efi, _, err := grub.Build(t.Context(), config, tools(t))
	if err != nil {
		t.Fatal(err)
	}
	return efi
}

// disk is an encrypted disk for one machine.
type disk struct {
	path string
	uuid string
	pin  luks.Pin
}

const testDiskUUID = "0d5a1f4e-55c5-4e0e-9a5e-0f2b7a6a3c11"

// makeDisk makes a disk as the builder does: a GPT, in its partition LUKS2, in that an ext4
// file system with the files.
func makeDisk(t testing.TB, uuid string, passphrase []byte, files ...diskFile) disk {
	t.Helper()
	const (
		start   = 1 << 20
		data    = 16 << 20
		content = 64 << 20
		size    = start + data + content + 1<<20
	)
	header, key, err := luks.Format(luks.Spec{UUID: uuid, KDF: luks.MinimalPBKDF2}, passphrase, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := header.Encode()
	if err != nil {
		t.Fatal(err)
	}
	head, tail, err := gpt.Table{DiskID: guid.MustParse("11111111-2222-4333-8444-555555555555"), Partitions: []gpt.Partition{{
		Type: rootType, ID: guid.MustParse("66666666-7777-4888-8999-aaaaaaaaaaaa"), Offset: start, Size: data + content, Name: "sealboot-root",
	}}}.Encode(size)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	cipher, err := luks.NewCipher(key, header.Segment().SectorSize, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := ext4.NewWriter(&encrypted{f, cipher, start + data}, ext4.Options{Size: content, Time: time.Unix(1700000000, 0)})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		e := source.Entry{Path: f.path, Type: source.Regular, Mode: 0o644, Size: int64(len(f.content))}
		if err := w.Add(e, bytes.NewReader(f.content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for offset, b := range map[int64][]byte{0: head, start: encoded, size - int64(len(tail)): tail} {
		if _, err := f.WriteAt(b, offset); err != nil {
			t.Fatal(err)
		}
	}
	return disk{path, header.UUID(), header.Pin()}
}

// diskFile is a file for makeDisk.
type diskFile struct {
	path    string
	content []byte
}

func file(path string, content []byte) diskFile { return diskFile{path, content} }

// encrypted writes through a cipher.
type encrypted struct {
	out    io.WriterAt
	cipher *luks.Cipher
	start  int64
}

func (e *encrypted) WriteAt(p []byte, offset int64) (int, error) {
	out := make([]byte, len(p))
	if err := e.cipher.Encrypt(out, p, offset); err != nil {
		return 0, err
	}
	return e.out.WriteAt(out, e.start+offset)
}

// secrets gives the table that a key server would send.
func secrets(t testing.TB, passphrase []byte, pin luks.Pin) []byte {
	t.Helper()
	table, err := sev.SecretTable{{GUID: passphraseGUID, Data: passphrase}, {GUID: pinGUID, Data: pin[:]}}.Encode(3072)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// machine is a run of QEMU.
type machine struct {
	efi   []byte   // GRUB
	table []byte   // put into the secret area before the first instruction
	disks []string // raw
	args  []string
	keys  string // typed on the serial console all the time
}

// bundled keeps what firmware made, by the EFI application: packing takes longer than a boot.
var bundled = struct {
	sync.Mutex
	images map[[32]byte][]byte
}{images: map[[32]byte][]byte{}}

// firmware gives the distribution's firmware with the GRUB in it, and its secret area.
func firmware(t testing.TB, efi []byte) ([]byte, ovmf.Area) {
	t.Helper()
	bundled.Lock()
	defer bundled.Unlock()
	image := bundled.images[sha256.Sum256(efi)]
	if image == nil {
		image = bundle(t, efi)
		bundled.images[sha256.Sum256(efi)] = image
	}
	parsed, err := ovmf.Parse(image)
	if err != nil {
		t.Fatal(err)
	}
	area, ok := parsed.SecretArea()
	if !ok {
		t.Fatal("the firmware has no secret area")
	}
	return image, area
}

func bundle(t testing.TB, efi []byte) []byte {
	t.Helper()
	base, err := os.ReadFile(testtool.AmdSevFirmware(t))
	if err != nil {
		t.Fatal(err)
	}
	image, err := ovmf.Bundle(base, efi)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// run starts the machine and waits until it turns itself off. It gives what was printed.
func (m machine) run(t testing.TB) string {
	t.Helper()
	image, area := firmware(t, m.efi)
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	args := []string{"-drive", "if=pflash,unit=0,format=raw,readonly=on,file=" + write("firmware.fd", image)}
	if m.table != nil {
		if len(m.table) > int(area.Size) {
			t.Fatalf("table of %d bytes, area of %d", len(m.table), area.Size)
		}
		args = append(args, "-device", fmt.Sprintf("loader,force-raw=on,addr=%#x,file=%s", area.Base, write("table", m.table)))
	}
	return qemu(t, m.keys, append(append(args, m.args...), drives(m.disks)...)...)
}

func drives(disks []string) (args []string) {
	for i, path := range disks {
		id := "disk" + string(rune('0'+i))
		args = append(args, "-drive", "if=none,format=raw,snapshot=on,id="+id+",file="+path, "-device", "virtio-blk-pci,drive="+id)
	}
	return args
}

// qemu runs a machine whose serial console is QEMU's standard input and output, to its end.
func qemu(t testing.TB, keys string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	args = append([]string{"-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512", "-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"}, args...)
	cmd := exec.CommandContext(ctx, testtool.Program(t, "qemu-system-x86_64"), args...)
	var console lockedBuffer
	cmd.Stdout, cmd.Stderr = &console, &console
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer in.Close()
		for ctx.Err() == nil {
			if _, err := io.WriteString(in, keys); err != nil || keys == "" {
				<-ctx.Done()
			}
			time.Sleep(10 * time.Millisecond)
		}
	}()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("qemu: %v (%v); the console's end:\n%s", err, ctx.Err(), tail(console.String()))
	}
	return console.String()
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// said gives sealboot's lines on a console.
func said(console string) (lines []string) {
	for line := range strings.Lines(console) {
		if _, text, ok := strings.Cut(strings.TrimRight(line, "\r\n"), "sealboot: "); ok {
			lines = append(lines, text)
		}
	}
	return lines
}

// lockedBuffer is a buffer that a program writes to while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
