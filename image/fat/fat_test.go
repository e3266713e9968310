package fat

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

// made makes a file system with mkfs.vfat and puts files in with mcopy.
func made(t testing.TB, bits string, size int64) []byte {
	t.Helper()
	dir := t.TempDir()
	image := filepath.Join(dir, "fat")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, size); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "mkfs.vfat"), "-F", bits, "-n", "ESP", "-i", "1234abcd", image)
	mmd, mcopy := testtool.Program(t, "mmd"), testtool.Program(t, "mcopy")
	testtool.Output(t, mmd, "-i", image, "::EFI", "::EFI/BOOT", "::EFI/a folder with a long name")
	for name, content := range map[string][]byte{"BOOTX64.EFI": noise(200_000), "grub.cfg": []byte("set x=1\n"), "empty": nil, "a file whose name is long, Größe.txt": []byte("long")} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		testtool.Output(t, mcopy, "-i", image, file, "::EFI/BOOT/")
	}
	data, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestReadsWhatMkfsAndMtoolsMake(t *testing.T) {
	t.Setenv("LC_ALL", "C.UTF-8")
	for bits, size := range map[string]int64{"12": 4 << 20, "16": 32 << 20, "32": 64 << 20} {
		t.Run(bits, func(t *testing.T) {
			image := made(t, bits, size)
			f, err := Open(bytes.NewReader(image), size)
			if err != nil {
				t.Fatal(err)
			}
			if f.UUID() != "1234-ABCD" || f.Label() != "ESP" {
				t.Errorf("identifier %s, label %q", f.UUID(), f.Label())
			}
			content := map[string][]byte{}
			err = f.Walk(t.Context(), func(e source.Entry, r io.Reader) error {
				content[e.Path] = nil
				if e.Type == source.Regular {
					got, err := io.ReadAll(r)
					if err != nil || int64(len(got)) != e.Size {
						t.Errorf("%s: %d of %d bytes, %v", e.Path, len(got), e.Size, err)
					}
					content[e.Path] = got
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if len(content) != 7 || !bytes.Equal(content["/EFI/BOOT/BOOTX64.EFI"], noise(200_000)) || string(content["/EFI/BOOT/grub.cfg"]) != "set x=1\n" ||
				string(content["/EFI/BOOT/a file whose name is long, Größe.txt"]) != "long" {
				var names []string
				for name := range content {
					names = append(names, name)
				}
				t.Errorf("got %q", names)
			}
			if got, err := f.ReadFile("/efi/boot/GRUB.CFG", 100); err != nil || string(got) != "set x=1\n" {
				t.Errorf("got %q, %v", got, err)
			}
			if names, err := f.ReadDir("/EFI"); err != nil || !slices.Equal(names, []string{"BOOT", "a folder with a long name"}) {
				t.Errorf("got %q, %v", names, err)
			}
			for _, name := range []string{"/nothing", "/EFI/BOOT/grub.cfg/x", strings.Repeat("/EFI", 40)} {
				if _, err := f.ReadFile(name, 100); !errors.Is(err, ErrNotFound) {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := f.ReadFile("/EFI/BOOT/BOOTX64.EFI", 100); err == nil {
				t.Error("a file larger than allowed was read")
			}
		})
	}
}

// walk opens an image and reads everything in it.
func walk(image []byte) error {
	f, err := Open(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		return err
	}
	return f.Walk(context.Background(), func(e source.Entry, r io.Reader) error {
		if r == nil {
			return nil
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != e.Size {
			return errors.New("short")
		}
		return err
	})
}

func TestRefuses(t *testing.T) {
	const size = 32 << 20
	good := made(t, "16", size)
	if err := walk(good); err != nil {
		t.Fatalf("the good image: %v", err)
	}
	f, err := Open(bytes.NewReader(good), size)
	if err != nil {
		t.Fatal(err)
	}
	efi, err := f.find("/EFI")
	if err != nil {
		t.Fatal(err)
	}
	boot, err := f.find("/EFI/BOOT")
	if err != nil {
		t.Fatal(err)
	}
	program, err := f.find("/EFI/BOOT/BOOTX64.EFI")
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	table := func(cluster uint32, next uint16) func([]byte) {
		return func(b []byte) { le.PutUint16(b[f.table+int64(cluster)*2:], next) }
	}
	bootEntry := f.place(efi.first) + 2*entrySize // behind the dots
	format := errors.New("any *FormatError")
	for name, c := range map[string]struct {
		spoil func([]byte)
		want  error
	}{
		"no signature":      {func(b []byte) { b[510] = 0 }, ErrNotFAT},
		"sector size":       {func(b []byte) { b[11] = 1 }, ErrNotFAT},
		"cluster size":      {func(b []byte) { b[13] = 3 }, ErrNotFAT},
		"no tables":         {func(b []byte) { b[16] = 0 }, ErrNotFAT},
		"larger than it is": {func(b []byte) { b[19], b[20] = 0, 0; le.PutUint32(b[32:], 1<<31) }, format},
		"small table":       {func(b []byte) { le.PutUint16(b[22:], 1) }, format},
		"no root folder":    {func(b []byte) { le.PutUint16(b[17:], 0) }, format},
		"folder loops":      {table(boot.first, uint16(boot.first)), format},
		"folder in itself":  {func(b []byte) { le.PutUint16(b[bootEntry+26:], uint16(efi.first)) }, format},
		"folder is root":    {func(b []byte) { le.PutUint16(b[bootEntry+26:], 0) }, format},
		"folder outside":    {func(b []byte) { le.PutUint16(b[bootEntry+26:], 0xfff0) }, format},
		"file's chain free": {table(program.first, 0), format},
		"file's chain ends": {table(program.first, 0xffff), format},
		"name with slash":   {func(b []byte) { b[bootEntry+1] = '/' }, format},
		"foreign name":      {func(b []byte) { b[bootEntry+1] = 0x99 }, format},
	} {
		t.Run(name, func(t *testing.T) {
			b := bytes.Clone(good)
			c.spoil(b)
			err := walk(b)
			if broken := (*FormatError)(nil); c.want == format && !errors.As(err, &broken) || c.want != format && !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
	if _, err := Open(bytes.NewReader(good[:100]), 100); !errors.Is(err, ErrNotFAT) {
		t.Errorf("tiny: %v", err)
	}
}

func FuzzWalk(f *testing.F) {
	for _, bits := range []string{"12", "16", "32"} {
		image := made(f, bits, map[string]int64{"12": 1 << 20, "16": 9 << 20, "32": 34 << 20}[bits])
		if err := walk(image); err != nil {
			f.Fatalf("the seed: %v", err)
		}
		r, err := Open(bytes.NewReader(image), int64(len(image)))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(image[:512], image[r.table:][:1024], image[r.data:][:4096], uint32(r.table), uint32(r.data))
	}
	f.Fuzz(func(t *testing.T, boot, table, data []byte, tableAt, dataAt uint32) {
		b := make([]byte, 2<<20)
		copy(b[dataAt%(2<<20):], data)
		copy(b[tableAt%(2<<20):], table)
		copy(b[:512], boot)
		if len(boot) > 36 {
			binary.LittleEndian.PutUint16(b[19:], 4000)
		}
		walk(b)
	})
}
