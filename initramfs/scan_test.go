package initramfs

import (
	"slices"
	"testing"
)

func TestScan(t *testing.T) {
	src := tree(t,
		file{"boot/vmlinuz-6.9.1-arch", nil}, file{"boot/initrd-6.9.1-arch", nil},
		file{"boot/vmlinuz-6.10.0-9-amd64", nil}, file{"boot/initrd.img-6.10.0-9-amd64", nil},
		file{"boot/vmlinux-6.10.0-9-amd64", nil},
		file{"boot/vmlinuz-6.10.0-10-amd64", nil}, file{"boot/initramfs-6.10.0-10-amd64.img", nil},
		file{"boot/vmlinuz-6.8.0.old", nil}, file{"boot/vmlinuz-0-rescue-9d1f", nil}, file{"boot/vmlinuz", nil},
		file{"usr/lib/modules/6.10.0-9-amd64/modules.builtin", nil},
		file{"lib/modules/6.9.1-arch/kernel/a.ko", nil},
	)
	got, err := Scan(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	want := []Kernel{
		{"6.10.0-10-amd64", "/boot/vmlinuz-6.10.0-10-amd64", "/boot/initramfs-6.10.0-10-amd64.img", ""},
		{"6.10.0-9-amd64", "/boot/vmlinuz-6.10.0-9-amd64", "/boot/initrd.img-6.10.0-9-amd64", "/usr/lib/modules/6.10.0-9-amd64"},
		{"6.9.1-arch", "/boot/vmlinuz-6.9.1-arch", "/boot/initrd-6.9.1-arch", "/lib/modules/6.9.1-arch"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestCompareVersions(t *testing.T) {
	ascending := []string{"5.10", "6.1~rc2", "6.1", "6.1.0-2", "6.1.0-10", "6.2", "6.10"}
	compared := 0
	for i, a := range ascending {
		for j, b := range ascending {
			got := compareVersions(a, b)
			if (got < 0) != (i < j) || (got == 0) != (i == j) {
				t.Errorf("compareVersions(%q, %q) = %d", a, b, got)
			}
			compared++
		}
	}
	if compared == 0 {
		t.Error("nothing was compared")
	}
}
