package initramfs

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

const lib = "lib/modules/6.1.0/"

// goodTree has a kernel whose dm-crypt stands in the archive before what it depends on.
func goodTree(t *testing.T, suffix string) []file {
	at := func(name string, fields ...string) file {
		return file{lib + "kernel/" + name + ".ko" + suffix, pack(t, suffix, ko(fields...))}
	}
	return []file{
		{"boot/vmlinuz-6.1.0", []byte("kernel")},
		{lib + "modules.builtin", []byte("kernel/fs/ext4/ext4.ko\nkernel/crypto/aes_generic.ko\n")},
		at("arch/aesni-intel", "depends=crypto-simd,aes-x86"),
		at("arch/aes-x86"),
		at("crypto/crypto_simd", "license=GPL", "depends="),
		at("crypto/ecb"),
		at("crypto/xts", "depends=", "softdep=pre: ecb no_such post: late"),
		at("crypto/late"),
		at("drivers/block/virtio_blk", "depends=virtio_ring"),
		at("drivers/md/dm-mod", "depends="),
		at("drivers/md/dm-crypt", "depends=dm-mod"),
		at("drivers/other", "depends=dm-mod"),
		at("drivers/virtio/virtio_ring"),
	}
}

func TestPlan(t *testing.T) {
	const want = "try crypto_simd.ko\ntry aes_x86.ko\ntry aesni_intel.ko\n" +
		"need ecb.ko\nneed xts.ko\ntry late.ko\nneed dm_mod.ko\nneed dm_crypt.ko\ntry virtio_ring.ko\ntry virtio_blk.ko\n"
	for _, suffix := range []string{"", ".gz", ".xz", ".zst"} {
		t.Run("ko"+suffix, func(t *testing.T) {
			src := tree(t, goodTree(t, suffix)...)
			kernel := onlyKernel(t, src)
			out, err := Build(t.Context(), src, kernel, program(false))
			if err != nil {
				t.Fatal(err)
			}
			members := readCPIO(t, out)
			got := string(members["sealboot/modules.list"])
			if got != want {
				t.Errorf("modules.list\n%swant\n%s", got, want)
			}
			for line := range strings.Lines(got) {
				name := strings.TrimSpace(line[strings.Index(line, " ")+1:])
				if !bytes.HasPrefix(members["sealboot/modules/"+name], []byte("\x7fELF")) {
					t.Errorf("%s is not in the archive as an ELF file", name)
				}
			}
			if !bytes.Equal(members["sealboot/agent"], program(false)) {
				t.Error("the agent is not in the archive as it was given")
			}
		})
	}
}

// TestFileSystems has the agent mount a boot volume and a root.
func TestFileSystems(t *testing.T) {
	at := func(name string, fields ...string) file { return file{lib + "kernel/" + name + ".ko", ko(fields...)} }
	src := tree(t, append(goodTree(t, ""), at("fs/btrfs", "depends=xor", "softdep=pre: crc32c"), at("lib/xor"), at("crypto/xxhash_generic"), at("fs/xfs"))...)
	for kind, want := range map[string]string{
		"btrfs": "try virtio_blk.ko\ntry xxhash_generic.ko\nneed xor.ko\nneed btrfs.ko\n", "xfs": "try virtio_blk.ko\nneed xfs.ko\n", "ext4": "try virtio_blk.ko\n",
	} {
		out, err := Build(t.Context(), src, onlyKernel(t, src), program(false), "ext4", kind)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(readCPIO(t, out)["sealboot/modules.list"]); !strings.HasSuffix(got, want) {
			t.Errorf("%s: %s", kind, got)
		}
	}
	if out, err := Build(t.Context(), src, onlyKernel(t, src), program(false), "ext4", "jfs"); out != nil || !errors.Is(err, ErrNoFileSystem) {
		t.Errorf("a kernel without the root's file system: %v", err)
	}
}

func TestRefusals(t *testing.T) {
	without := func(files []file, part string) []file {
		return slices.DeleteFunc(files, func(f file) bool { return strings.Contains(f.path, part) })
	}
	for _, c := range []struct {
		name  string
		spoil func([]file) []file
		agent []byte
		want  error
	}{
		{"nothing spoiled", func(f []file) []file { return f }, program(false), nil},
		{"no dm-crypt", func(f []file) []file { return without(f, "dm-crypt") }, program(false), ErrNoCrypt},
		{"no modules at all", func(f []file) []file { return without(f, "lib/modules") }, program(false), ErrNoModules},
		{"agent needs a loader", func(f []file) []file { return f }, program(true), ErrAgent},
		{"agent is a script", func(f []file) []file { return f }, []byte("#!/bin/sh\n"), ErrAgent},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := tree(t, c.spoil(goodTree(t, ""))...)
			out, err := Build(t.Context(), src, onlyKernel(t, src), c.agent)
			if !errors.Is(err, c.want) {
				t.Fatalf("error %v, want %v", err, c.want)
			}
			if err != nil && out != nil {
				t.Error("an archive in spite of the error")
			}
		})
	}
}

func TestDependencies(t *testing.T) {
	src := func(fields map[string]string) source.Source {
		files := []file{{"boot/vmlinuz-6.1.0", nil}}
		for _, name := range []string{"a", "b", "dm-crypt"} {
			if f, ok := fields[name]; ok {
				files = append(files, file{lib + name + ".ko", ko(f)})
			}
		}
		return tree(t, files...)
	}
	for _, c := range []struct {
		name   string
		fields map[string]string
		want   string // part of the error
	}{
		{"present", map[string]string{"a": "depends=b", "b": "depends=", "dm-crypt": "depends=a"}, ""},
		{"missing", map[string]string{"a": "depends=b", "dm-crypt": "depends=a"}, "a needs the module b"},
		{"circle", map[string]string{"a": "depends=b", "b": "depends=a", "dm-crypt": "depends=a"}, "circle: dm_crypt, a, b, a"},
		{"soft circle", map[string]string{"a": "softdep=pre: b", "b": "softdep=pre: a", "dm-crypt": "softdep=pre: a"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := src(c.fields)
			_, err := Build(t.Context(), s, onlyKernel(t, s), program(false))
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestSameBytes(t *testing.T) {
	var first []byte
	for range 3 {
		src := tree(t, goodTree(t, "")...)
		out, err := Build(t.Context(), src, onlyKernel(t, src), program(false))
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = out
		} else if !bytes.Equal(first, out) {
			t.Fatal("the same tree gave other bytes")
		}
	}
}

// TestDebianKernel takes a package of Debian's kernel as it is unpacked, without modules.dep,
// and lets cpio(1) list the outcome.
func TestDebianKernel(t *testing.T) {
	deb := testtool.Deb(t, "linux-image-*-cloud-amd64")
	dir := t.TempDir()
	testtool.Output(t, testtool.Program(t, "dpkg-deb"), "-x", deb, dir)
	src, err := source.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	kernel := onlyKernel(t, src)
	out, err := Build(t.Context(), src, kernel, program(false))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("kernel %s: %d bytes\n%s", kernel.Version, len(out), readCPIO(t, out)["sealboot/modules.list"])
	list := string(readCPIO(t, out)["sealboot/modules.list"])
	wanted := []string{"need dm_mod.ko\n", "need dm_crypt.ko\n", "try virtio_ring.ko\n", "try virtio_pci.ko\n", "try virtio_blk.ko\n"}
	builtin, err := os.ReadFile(filepath.Join(dir, kernel.Modules, "modules.builtin"))
	if err != nil {
		t.Fatal(err)
	}
	wanted = slices.DeleteFunc(wanted, func(line string) bool { // Debian 13 builds virtio's bus in
		name := strings.TrimSuffix(strings.Fields(line)[1], ".ko")
		return bytes.Contains(builtin, []byte("/"+name+".ko\n"))
	})
	if len(wanted) < 3 {
		t.Fatalf("only %q are modules", wanted)
	}
	last := -1
	for _, module := range wanted {
		at := strings.Index(list, module)
		if at <= last {
			t.Errorf("%q is missing or too early", module)
		}
		last = at
	}
	if strings.Contains(list, "ext4.ko") {
		t.Error("ext4 is built into this kernel, but it is in the list")
	}
	cpio := testtool.Program(t, "cpio")
	name := filepath.Join(dir, "initramfs.cpio")
	if err := os.WriteFile(name, out, 0o600); err != nil {
		t.Fatal(err)
	}
	names := testtool.Output(t, cpio, "--quiet", "-t", "-F", name)
	if want := 4 + strings.Count(list, "\n"); strings.Count(names, "\n") != want {
		t.Errorf("cpio lists\n%swant %d names", names, want)
	}
}

func onlyKernel(t *testing.T, src source.Source) Kernel {
	t.Helper()
	kernels, err := Scan(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if len(kernels) != 1 {
		t.Fatalf("kernels %+v, want one", kernels)
	}
	return kernels[0]
}

// readCPIO gives the content of each member, and checks the fixed fields.
func readCPIO(t *testing.T, b []byte) map[string][]byte {
	t.Helper()
	members := map[string][]byte{}
	for {
		var field [13]uint32
		if len(b) < 110 || string(b[:6]) != "070701" {
			t.Fatalf("no header where one is due (%d bytes left)", len(b))
		}
		for i := range field {
			if _, err := fmt.Sscanf(string(b[6+8*i:14+8*i]), "%08X", &field[i]); err != nil {
				t.Fatal(err)
			}
		}
		size, nameSize := int(field[6]), int(field[11])
		name := string(b[110 : 110+nameSize-1])
		b = b[(110+nameSize+3)&^3:]
		if name == "TRAILER!!!" {
			return members
		}
		if field[2]|field[3]|field[5] != 0 {
			t.Errorf("%s has an owner or a time", name)
		}
		members[name] = b[:size]
		b = b[(size+3)&^3:]
	}
}
