package grub_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/grub"
	"github.com/sealboot/sealboot/internal/tool"
)

// TestBuildIdentical builds twice: in other folders, with GRUB's modules in another place
// and of another time, a moment later.
func TestBuildIdentical(t *testing.T) {
	found := tools(t)
	config := grub.Config{DiskUUID: testDiskUUID, Append: "console=ttyS0"}
	first, info, err := grub.Build(t.Context(), config, found)
	if err != nil {
		t.Fatal(err)
	}
	moved := filepath.Join(t.TempDir(), "a folder with another name")
	if err := os.CopyFS(moved, os.DirFS(found.ModuleDir)); err != nil {
		t.Fatal(err)
	}
	old := time.Unix(1, 0)
	for _, name := range []string{"kernel.img", "ext2.mod"} {
		if err := os.Chtimes(filepath.Join(moved, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := t.TempDir()
	t.Setenv("TMPDIR", elsewhere)
	time.Sleep(time.Until(time.Now().Truncate(time.Second).Add(time.Second))) // another second for anything that writes the time down
	found.ModuleDir = moved
	second, info2, err := grub.Build(t.Context(), config, found)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first, second) {
		t.Error("two builds differ")
	}
	if info.SHA256 != info2.SHA256 || info.ModulesSHA256 != info2.ModulesSHA256 || info.ConfigSHA256 != info2.ConfigSHA256 {
		t.Errorf("%+v and %+v", info, info2)
	}
	if left, _ := os.ReadDir(elsewhere); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
	sum := sha256.Sum256(first)
	if info.SHA256 != hex.EncodeToString(sum[:]) || info.Size != len(first) || info.GRUBVersion == "" || !strings.Contains(info.CompilerVersion, "gcc") {
		t.Errorf("%+v", info)
	}
	other, otherInfo, err := grub.Build(t.Context(), grub.Config{DiskUUID: testDiskUUID}, found)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(first, other) || otherInfo.ConfigSHA256 == info.ConfigSHA256 || otherInfo.ModulesSHA256 != info.ModulesSHA256 {
		t.Error("another configuration is not told apart")
	}
}

// TestBuildHolds looks for what must be in the image, and what must not.
func TestBuildHolds(t *testing.T) {
	efi, info, err := grub.Build(t.Context(), grub.Config{DiskUUID: testDiskUUID}, tools(t))
	if err != nil {
		t.Fatal(err)
	}
	if last := info.Modules[len(info.Modules)-1]; last != "efisecret" {
		t.Errorf("the last module is %s", last)
	}
	for _, name := range []string{"memdisk", "luks2", "ext2", "linux", "boot", "gcry_rijndael"} {
		if !slices.Contains(info.Modules, name) {
			t.Errorf("no module %s", name)
		}
	}
	for _, name := range []string{"normal", "configfile", "minicmd", "chain", "http", "tftp", "luks", "serial", "search", "ls", "cat"} {
		if slices.Contains(info.Modules, name) {
			t.Errorf("module %s is in the image", name)
		}
	}
	if len(efi) > 1<<20 {
		t.Errorf("%d bytes", len(efi))
	}
}

// TestBuildRefuses spoils the tools.
func TestBuildRefuses(t *testing.T) {
	good := tools(t)
	copyModules := func(t *testing.T, spoil func(dir string)) grub.Tools {
		dir := t.TempDir()
		names, err := os.ReadDir(good.ModuleDir)
		for _, name := range names {
			err = errors.Join(err, os.Symlink(filepath.Join(good.ModuleDir, name.Name()), filepath.Join(dir, name.Name())))
		}
		if err != nil {
			t.Fatal(err)
		}
		spoil(dir)
		changed := good
		changed.ModuleDir = dir
		return changed
	}
	write := func(t *testing.T, path, text string) {
		os.Remove(path) // a link to the good file
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, dir string)
		want  error
	}{
		{"a module missing", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "luks2.mod")) }, os.ErrNotExist},
		{"no list of modules", func(t *testing.T, dir string) { os.Remove(filepath.Join(dir, "moddep.lst")) }, os.ErrNotExist},
		{"list without a module", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "moddep.lst"), "memdisk:\n") }, grub.ErrModules},
		{"modules that need normal mode", func(t *testing.T, dir string) {
			list, _ := os.ReadFile(filepath.Join(dir, "moddep.lst"))
			write(t, filepath.Join(dir, "moddep.lst"), strings.Replace(string(list), "\nboot:", "\nboot: normal", 1))
		}, grub.ErrModules},
		{"ext2.mod is no module", func(t *testing.T, dir string) { write(t, filepath.Join(dir, "ext2.mod"), "x") }, grub.ErrModules},
		{"ext2.mod has another layout", func(t *testing.T, dir string) {
			tar, _ := os.ReadFile(filepath.Join(dir, "gcry_sha256.mod"))
			write(t, filepath.Join(dir, "ext2.mod"), string(tar))
		}, grub.ErrModules},
		{"a kernel without a symbol", func(t *testing.T, dir string) {
			kernel, _ := os.ReadFile(filepath.Join(dir, "kernel.img"))
			write(t, filepath.Join(dir, "kernel.img"), strings.ReplaceAll(string(kernel), "\x00grub_vsnprintf\x00", "\x00grub_vsnprintg\x00"))
		}, grub.ErrModules},
	} {
		t.Run(c.name, func(t *testing.T) {
			broken := copyModules(t, func(dir string) { c.spoil(t, dir) })
			if efi, info, err := grub.Build(t.Context(), grub.Config{}, broken); !errors.Is(err, c.want) || efi != nil || info != nil {
				t.Errorf("error %v, want %v", err, c.want)
			}
		})
	}
	var failed *tool.Error
	for name, broken := range map[string]grub.Tools{
		"compiler": {Mkimage: good.Mkimage, ModuleDir: good.ModuleDir, CC: "false"},
		"mkimage":  {Mkimage: "false", ModuleDir: good.ModuleDir, CC: good.CC},
	} {
		if _, _, err := grub.Build(t.Context(), grub.Config{}, broken); !errors.As(err, &failed) {
			t.Errorf("failing %s: %v", name, err)
		}
	}
	var wrong *grub.ConfigError
	if _, _, err := grub.Build(t.Context(), grub.Config{Append: "\n"}, good); !errors.As(err, &wrong) {
		t.Errorf("bad configuration: %v", err)
	}
}

func TestFindTools(t *testing.T) {
	tools(t) // a machine where they can be found
	root := t.TempDir()
	write := func(path, text string) {
		path = filepath.Join(root, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o700)); err != nil {
			t.Fatal(err)
		}
	}
	write("usr/bin/grub2-mkimage", "")
	write("usr/lib/grub/x86_64-efi/moddep.lst", "")
	checked := 0
	for version, good := range map[string]bool{
		"2.12": true, "2.12-9+deb13u1": true, "2.12-1ubuntu7.3": true, "2.13~rc1": true, "2.14": true, "3.0": true,
		"2.12~rc1-4": false, "2.06-13+deb12u1": false, "2.2": false, "1.99": false, "x": false, "2": false,
	} {
		write("usr/lib/grub/x86_64-efi/modinfo.sh", "grub_version=\"2.00\"\ngrub_package_version=\""+version+"\"\n")
		found, err := grub.FindTools(root)
		taken := err == nil && found.ModuleDir == filepath.Join(root, "usr/lib/grub/x86_64-efi") && found.Mkimage == filepath.Join(root, "usr/bin/grub2-mkimage")
		if taken != good {
			t.Errorf("version %s: %+v, %v", version, found, err)
		}
		if err != nil && (!errors.Is(err, grub.ErrTools) || !strings.Contains(err.Error(), "install")) {
			t.Errorf("version %s: %v", version, err)
		}
		checked++
	}
	if checked < 10 {
		t.Fatal("no versions")
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := grub.FindTools(root); !errors.Is(err, grub.ErrTools) || !strings.Contains(err.Error(), "gcc") {
		t.Errorf("without gcc: %v", err)
	}
}
