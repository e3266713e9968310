package guest

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/disk"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/initramfs"
	"github.com/sealboot/sealboot/internal/testtool"
)

// root makes a folder with files and opens it. A name that ends with "/" is a folder.
func root(t *testing.T, files map[string]string) source.Source {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			if err := os.MkdirAll(path, 0o755); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	src, err := source.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// itself is this test's program, which is static as the agent is.
func itself(t *testing.T) []byte {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// kernel is a kernel with dm-crypt in itself.
var kernel = map[string]string{
	"boot/vmlinuz-6.1": "kernel", "usr/lib/modules/6.1/modules.builtin": "kernel/drivers/md/dm-crypt.ko\n",
}

func with(files ...string) map[string]string {
	all := map[string]string{}
	for name, content := range kernel {
		all[name] = content
	}
	for _, name := range files {
		all[name] = ""
	}
	return all
}

func TestPrepare(t *testing.T) {
	const fstab, ours, agent, program = "/etc/fstab", "/boot/sealboot/initramfs-6.1", "/usr/lib/sealboot/sealboot-agent", "/usr/lib/sealboot/sealboot-guest"
	always := []string{agent, ours, fstab, program}
	spec := Spec{Agent: itself(t), Program: []byte("program")}
	for name, c := range map[string]struct {
		files map[string]string
		want  []string
	}{
		"nothing else": {with(), nil},
		"Debian": {with("etc/kernel/postinst.d/", "var/lib/dpkg/", "etc/initramfs-tools/", "usr/lib/kernel/install.d/", "usr/lib/systemd/systemd"), []string{
			"/etc/initramfs/post-update.d/sealboot", "/etc/kernel/install.d/95-sealboot.install", "/etc/kernel/postinst.d/zz-sealboot", "/etc/kernel/postrm.d/zz-sealboot",
			"/etc/systemd/system/local-fs.target.d/sealboot-grow.conf", "/etc/systemd/system/sealboot-grow.service"}},
		"Fedora": {with("usr/lib/kernel/install.d/", "usr/lib/dracut/", "usr/lib/systemd/systemd"), []string{
			"/etc/dracut.conf.d/90-sealboot.conf", "/etc/kernel/install.d/95-sealboot.install",
			"/etc/systemd/system/local-fs.target.d/sealboot-grow.conf", "/etc/systemd/system/sealboot-grow.service", "/usr/lib/dracut/modules.d/99sealboot/module-setup.sh"}},
		"cloud": {with("usr/bin/cloud-init", "usr/sbin/qemu-ga"), []string{"/etc/cloud/cloud.cfg.d/99-sealboot.cfg", "/etc/systemd/system/qemu-guest-agent.service.d/sealboot.conf"}},
	} {
		made, err := Prepare(t.Context(), root(t, c.files), spec)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, f := range made.Files {
			got = append(got, f.Path)
			if script := strings.HasPrefix(string(f.Content), "#!"); len(f.Content) == 0 || script && f.Mode != 0o755 {
				t.Errorf("%s: %s has %d bytes and mode %o", name, f.Path, len(f.Content), f.Mode)
			}
		}
		slices.Sort(got)
		want := slices.Sorted(slices.Values(slices.Concat(always, c.want)))
		if told := len(made.Notes) > 0; told != (name == "cloud") {
			t.Errorf("%s: notes %q", name, made.Notes)
		}
		if !slices.Equal(got, want) || len(made.Kernels) != 1 {
			t.Errorf("%s: %q, %v; want %q", name, got, made.Kernels, want)
		}
	}
	if made, err := Prepare(t.Context(), root(t, map[string]string{"etc/x": ""}), spec); err != nil || len(made.Kernels) != 0 {
		t.Errorf("no kernel: %+v, %v", made, err)
	}
	withXFS := Spec{Agent: spec.Agent, Program: spec.Program, System: foreign(disk.XFS)}
	if made, err := Prepare(t.Context(), root(t, with()), withXFS); made != nil || !errors.Is(err, initramfs.ErrNoFileSystem) {
		t.Errorf("a kernel that cannot mount the root: %v", err)
	}
	files := with()
	files["usr/lib/modules/6.1/modules.builtin"] += "kernel/fs/xfs/xfs.ko\nkernel/fs/ext4/ext4.ko\n"
	if made, err := Prepare(t.Context(), root(t, files), withXFS); err != nil || !slices.ContainsFunc(made.Files, func(f source.File) bool { return f.Path == fstab && strings.Contains(string(f.Content), bootLine) }) {
		t.Errorf("a root in XFS: %+v, %v", made, err)
	}
	for name, bad := range map[string]struct {
		files map[string]string
		agent []byte
	}{
		"a folder for a table":        {with("etc/fstab/x"), spec.Agent},
		"an agent that is no program": {with(), []byte("no program")},
	} {
		if made, err := Prepare(t.Context(), root(t, bad.files), Spec{Agent: bad.agent, Program: spec.Program}); made != nil || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestScripts has a shell read every script.
func TestScripts(t *testing.T) {
	checked := 0
	for _, h := range hooks {
		text := string(*h.text)
		first, _, _ := strings.Cut(text, "\n")
		shell, ok := strings.CutPrefix(first, "#!")
		if !ok {
			continue
		}
		checked++
		cmd := exec.Command(testtool.Program(t, shell), "-n")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", h.path, err, out)
		}
		if !strings.Contains(text, ProgramPath) {
			t.Errorf("%s does not run %s", h.path, ProgramPath)
		}
	}
	if checked < 5 {
		t.Fatalf("checked %d", checked)
	}
}
