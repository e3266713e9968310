package grub_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// versions are in ascending order.
var versions = []string{
	"0-rescue-3f1b7a", "2.6.32-5-amd64", "4.9.0-13-amd64", "4.19.0-6-amd64", "5.10.0-8-amd64", "5.10.0-28-amd64",
	"6.1.0-9-cloud-amd64", "6.1.0-50-cloud-amd64", "6.1.0-50-cloud-amd64-unsigned", "6.9.12", "6.10-rc1", "6.10-rc2", "6.10-rc10", "6.10",
	"6.10.1-100.fc39.x86_64", "6.10.1-200.fc40.x86_64", "6.10.11", "6.11.0-rc3+", "6.11.0", "6.12.6+bpo-amd64", "6.12.43+deb13-amd64", "6.12.48+deb13-amd64",
	"6.13~rc7-amd64", "6.13-amd64", "10.0.0",
}

func TestVersionOrder(t *testing.T) {
	h := newHost(t)
	checked := 0
	for i, a := range versions {
		for j, b := range versions {
			want := "0"
			switch {
			case i < j:
				want = "-1"
			case i > j:
				want = "1"
			}
			if got := h.ask(t, 'v', []byte(a+"\x00"+b+"\x00")); got != want {
				t.Errorf("%s against %s: %s, want %s", a, b, got, want)
			}
			checked++
		}
	}
	if checked < 100 {
		t.Fatalf("compared %d pairs", checked)
	}
	// Equal by value, but one of them has to be first.
	if a, b := h.ask(t, 'v', []byte("6.1\x006.01\x00")), h.ask(t, 'v', []byte("6.01\x006.1\x00")); a == b || a == "0" {
		t.Errorf("6.1 and 6.01: %s and %s", a, b)
	}
}

// TestVersionOrderDpkg compares with dpkg, which knows ~ but not that -rc1 is a candidate.
func TestVersionOrderDpkg(t *testing.T) {
	dpkg := testtool.Program(t, "dpkg")
	h := newHost(t)
	checked := 0
	for i, a := range versions {
		for _, b := range versions[i+1:] {
			if strings.Contains(a+b, "rc") && !strings.Contains(a+b, "~rc") || strings.Contains(a+b, "rescue") {
				continue
			}
			before := exec.Command(dpkg, "--compare-versions", a, "lt", b).Run() == nil
			if got := h.ask(t, 'v', []byte(a+"\x00"+b+"\x00")); (got == "-1") != before {
				t.Errorf("%s against %s: %s; older for dpkg: %v", a, b, got, before)
			}
			checked++
		}
	}
	if checked < 100 {
		t.Fatalf("compared %d pairs", checked)
	}
}

// TestKernelChoice looks at folders as distributions fill them.
func TestKernelChoice(t *testing.T) {
	h := newHost(t)
	for _, c := range []struct {
		name  string
		files []string // "b NAME" in /boot, "i NAME" in /boot/sealboot
		want  string   // version, kernel's name, initrd's name, newest without initramfs, overflow
	}{
		{"Debian", []string{"b vmlinuz-6.1.0-9-amd64", "b initrd.img-6.1.0-9-amd64", "b vmlinuz-6.1.0-10-amd64", "b config-6.1.0-10-amd64", "b System.map-6.1.0-10-amd64",
			"i initramfs-6.1.0-9-amd64", "i initramfs-6.1.0-10-amd64"}, "6.1.0-10-amd64 1 0  0"},
		{"Fedora", []string{"b vmlinuz-0-rescue-1234", "b initramfs-0-rescue-1234.img", "b vmlinuz-6.11.4-301.fc41.x86_64", "b initramfs-6.11.4-301.fc41.x86_64.img",
			"i initramfs-6.11.4-301.fc41.x86_64"}, "6.11.4-301.fc41.x86_64 1 2 0-rescue-1234 0"},
		{"Arch", []string{"b vmlinuz-linux", "b initramfs-linux.img", "b initramfs-linux-fallback.img", "i initramfs-linux"}, "linux 1 2  0"},
		{"SUSE", []string{"b vmlinuz-6.4.0-150600.21-default", "b initrd-6.4.0-150600.21-default", "b vmlinux-6.4.0-150600.21-default.gz", "i initramfs-6.4.0-150600.21-default"},
			"6.4.0-150600.21-default 1 3  0"},
		{"newest without initramfs", []string{"b vmlinuz-6.10", "b vmlinuz-6.9", "b vmlinuz-6.8", "i initramfs-6.9", "i initramfs-6.8"}, "6.9 1 0 6.10 0"},
		{"candidate is older", []string{"b vmlinuz-6.10-rc7", "b vmlinuz-6.10", "i initramfs-6.10", "i initramfs-6.10-rc7"}, "6.10 1 0  0"},
		{"preferred name", []string{"b kernel-6.1", "b vmlinuz-6.1", "b initrd-6.1", "b initrd.img-6.1", "i initramfs-6.1"}, "6.1 1 1  0"},
		{"initramfs without kernel", []string{"i initramfs-6.2"}, "- - -  0"},
		{"half-installed", []string{"b vmlinuz-6.1.dpkg-new", "b vmlinuz-6.1", "i initramfs-6.1", "i .initramfs-6.2.new-1", "i initramfs-"}, "6.1 1 0 6.1.dpkg-new 0"},
		{"names that are none", []string{"b vmlinuz", "b vmlinuz-", "b vmlinuz-6.1 x", "b vmlinuz-../x", "b vmlinuz--1", "b vmlinuz-" + strings.Repeat("1", 128), "i initramfs-6.1 x"}, "- - -  0"},
		{"too many", append(manyInitramfs(65), "b vmlinuz-6.1"), "6.1 1 0  1"},
		{"as many as can be", append(manyInitramfs(64), "b vmlinuz-6.1"), "6.1 1 0  0"},
		{"nothing", nil, "- - -  0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var lines strings.Builder
			for _, f := range c.files {
				lines.WriteString(f + "\x00")
			}
			lines.WriteString("\x00")
			if got := h.ask(t, 'k', []byte(lines.String())); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func manyInitramfs(n int) (files []string) {
	for i := range n {
		files = append(files, fmt.Sprintf("i initramfs-6.%d", i))
	}
	return files
}

func FuzzKernels(f *testing.F) {
	f.Add([]byte("i initramfs-6.1\x00b vmlinuz-6.1\x00b initrd.img-6.1\x00"))
	f.Add([]byte("b vmlinuz-6.1-rc1\x00b vmlinuz-6.1\x00"))
	h := newHost(f)
	f.Fuzz(func(t *testing.T, names []byte) {
		h.ask(t, 'k', append(names[:len(names):len(names)], 0, 0))
		if a, b, ok := strings.Cut(string(names), "\x00"); ok {
			b, _, _ = strings.Cut(b, "\x00")
			forward, back := h.ask(t, 'v', []byte(a+"\x00"+b+"\x00")), h.ask(t, 'v', []byte(b+"\x00"+a+"\x00"))
			if opposite := map[string]string{"0": "0", "1": "-1", "-1": "1"}; opposite[forward] != back {
				t.Errorf("%q against %q: %s, and the other way %s", a, b, forward, back)
			}
		}
	})
}
