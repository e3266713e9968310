package kernels

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/sealboot/sealboot/initramfs"
)

func itself(t *testing.T) []byte {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path) // static, as the agent is
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// install makes the modules of a kernel with dm-crypt in itself, or without.
func install(t *testing.T, root, version, builtin string) {
	t.Helper()
	folder := filepath.Join(root, "usr/lib/modules", version)
	if err := errors.Join(os.MkdirAll(folder, 0o755), os.WriteFile(filepath.Join(folder, "modules.builtin"), []byte(builtin), 0o644)); err != nil {
		t.Fatal(err)
	}
}

const crypt = "kernel/drivers/md/dm-crypt.ko\n"

func TestUpdate(t *testing.T) {
	root, agent := t.TempDir(), itself(t)
	install(t, root, "6.1", crypt)
	install(t, root, "6.2", crypt)
	install(t, root, "6.3", "kernel/fs/ext4.ko\n")
	path := filepath.Join(root, initramfs.Path("6.1"))
	for i, want := range []bool{true, false} {
		if changed, err := Update(t.Context(), root, "6.1", agent); changed != want || err != nil {
			t.Fatalf("time %d: changed %v, %v", i, changed, err)
		}
	}
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	// What fails leaves the old one.
	if err := os.WriteFile(filepath.Join(root, "usr/lib/modules/6.1/modules.builtin"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		version string
		agent   []byte
		want    error
	}{
		{"6.1", agent, initramfs.ErrNoCrypt}, {"6.3", agent, initramfs.ErrNoCrypt}, {"6.2", []byte("x"), initramfs.ErrAgent},
		{"6.4", agent, ErrVersion}, {"../6.1", agent, ErrVersion}, {"", agent, ErrVersion},
	} {
		if changed, err := Update(t.Context(), root, c.version, c.agent); changed || !errors.Is(err, c.want) {
			t.Errorf("%q: %v, %v", c.version, changed, err)
		}
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(first) {
		t.Errorf("the old one is gone or another: %v", err)
	}
	if names, err := os.ReadDir(filepath.Dir(path)); err != nil || len(names) != 1 {
		t.Errorf("there is %v, %v", names, err)
	}
	for range 2 {
		if err := Remove(root, "6.1"); err != nil {
			t.Error(err)
		}
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("not removed: %v", err)
	}
	if err := Remove(root, "../../etc/passwd"); !errors.Is(err, ErrVersion) {
		t.Errorf("a path for a version: %v", err)
	}
}
