package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/testtool"
)

// packerLimit bounds a run of Packer, in which sealboot builds one disk.
const packerLimit = 5 * time.Minute

// packerBench is a Packer with our plugin, and a disk image to work on.
type packerBench struct {
	*stage
	packer, dir, image string
	env                []string
}

// newPacker needs a Packer, which is some minutes' work to build: `make test-packer` does it and names it in
// SEALBOOT_PACKER. Without that the tests are skipped, in CI too.
func newPacker(t *testing.T) *packerBench {
	t.Helper()
	packer := os.Getenv("SEALBOOT_PACKER")
	if packer == "" {
		t.Skip("SEALBOOT_PACKER names no Packer: make test-packer builds one")
	}
	b := &packerBench{stage: theStage(t), packer: packer, dir: t.TempDir()}
	plugins := filepath.Join(b.dir, "plugins")
	build := exec.Command("go", "build", "-o", filepath.Join(plugins, "packer-plugin-sealboot"), ".")
	build.Dir = filepath.Join(testtool.Project(), "packer")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	b.env = append(os.Environ(), "PATH="+b.Bin+":"+os.Getenv("PATH"), "PACKER_PLUGIN_PATH="+plugins, "PACKER_CONFIG_DIR="+b.dir, "PACKER_CACHE_DIR="+b.dir,
		"PACKER_LOG=1", "PACKER_NO_COLOR=1", "CHECKPOINT_DISABLE=1")
	b.image = b.diskImage(t)
	return b
}

// diskImage makes a disk as installers do: a QCOW2 image with a partition table, and the root file system in it.
func (b *packerBench) diskImage(t *testing.T) string {
	t.Helper()
	root, plain, image := filepath.Join(b.dir, "root"), filepath.Join(b.dir, "disk.raw"), filepath.Join(b.dir, "debian.qcow2")
	if err := os.Mkdir(root, 0o755); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, "tar", "-xf", b.rootfs(), "-C", root)
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(plain, 514<<20); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "sgdisk"), "-n", "1:2048:+512M", "-t", "1:8304", plain) // root for x86-64
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-F", "-t", "ext4", "-E", "root_owner=0:0,offset=1048576", "-d", root, plain, "512M")
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-O", "qcow2", "-c", plain, image)
	for _, path := range []string{root, plain} {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	return image
}

// start starts Packer on one of the plugin's examples, in a folder of its own.
func (b *packerBench) start(ctx context.Context, t *testing.T, dir, example string, env []string, vars ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	args := []string{"build", "-var", "image=" + b.image, "-var", "tools=" + filepath.Join(b.Deps, "root")}
	for _, v := range vars {
		args = append(args, "-var", v)
	}
	cmd := exec.CommandContext(ctx, b.packer, append(args, filepath.Join(testtool.Project(), "packer", "example", example))...)
	var out bytes.Buffer
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.Env = dir, &out, &out, append(slices.Clone(b.env), env...)
	// Packer is two processes, and a terminal interrupts both.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel, cmd.WaitDelay = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }, 20*time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd, &out
}

func (b *packerBench) build(t *testing.T, dir, example string, env []string, vars ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), packerLimit)
	defer cancel()
	cmd, out := b.start(ctx, t, dir, example, env, vars...)
	if err := cmd.Wait(); err != nil {
		t.Fatalf("packer build %s: %v\n%s", example, err, out)
	}
	return out.String()
}

// TestPacker has a real Packer make an encrypted disk of a disk image through the plugin, and boots it.
func TestPacker(t *testing.T) {
	b := newPacker(t)
	random := make([]byte, 32) // GRUB would spend minutes on a passphrase that a person could have chosen
	rand.Read(random)
	passphrase := hex.EncodeToString(random)
	dir := t.TempDir()
	log := b.build(t, dir, "web1.pkr.hcl", []string{"PKR_VAR_passphrase=" + passphrase})
	image := lab.Image{Name: "packer", Dir: filepath.Join(dir, "web1")}

	if got, err := os.ReadFile(image.Passphrase()); err != nil || string(got) != passphrase {
		t.Errorf("the passphrase is another than the given one: %d bytes, %v", len(got), err)
	}
	if !strings.Contains(log, "packer-plugin-sealboot") || strings.Contains(log, passphrase) {
		t.Errorf("Packer's log has the passphrase, or nothing of the plugin: %d bytes", len(log))
	}
	// What comes after the plugin is told of what may be shown, and only that.
	var manifest struct {
		Builds []struct {
			ArtifactID string `json:"artifact_id"`
			Files      []struct{ Name string }
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err == nil {
		err = json.Unmarshal(data, &manifest)
	}
	if err != nil || len(manifest.Builds) != 1 || len(manifest.Builds[0].Files) != 3 || bytes.Contains(data, []byte("passphrase")) {
		t.Fatalf("manifest: %v\n%s", err, data)
	}
	record, err := os.ReadFile(image.Record())
	if err != nil || !bytes.Contains(record, []byte(manifest.Builds[0].ArtifactID)) {
		t.Errorf("the artifact's id %q is not in the record: %v", manifest.Builds[0].ArtifactID, err)
	}
	if err := b.Register(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	b.wantBoot(t, b.launch(t, lab.Machine{Image: image}))

	changed := filepath.Join(dir, "changed.fd")
	if err := lab.FlipByte(image.Firmware(), changed, 1<<20); err != nil {
		t.Fatal(err)
	}
	b.wantRefused(t, b.launch(t, lab.Machine{Image: image, Firmware: changed}), "release", "refused", "measurement does not match")
}

// TestPackerShellLocal has Packer run sealboot without the plugin.
func TestPackerShellLocal(t *testing.T) {
	b := newPacker(t)
	dir := t.TempDir()
	b.build(t, dir, "shell-local.pkr.hcl", nil)
	image := lab.Image{Name: "packer-shell-local", Dir: filepath.Join(dir, "web1")}
	if err := b.Register(t.Context(), image); err != nil {
		t.Fatal(err)
	}
	b.wantBoot(t, b.launch(t, lab.Machine{Image: image}))
}

// TestPackerFailure has sealboot refuse, and then interrupts Packer while sealboot works. Neither leaves a disk behind.
func TestPackerFailure(t *testing.T) {
	b := newPacker(t)
	ctx, cancel := context.WithTimeout(t.Context(), packerLimit)
	defer cancel()
	left := func(dir string) {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "built" {
				t.Errorf("left behind: %s", e.Name())
			}
		}
	}

	dir := t.TempDir()
	b.image = filepath.Join(testtool.Project(), "LICENSE")
	cmd, out := b.start(ctx, t, dir, "web1.pkr.hcl", nil)
	if err := cmd.Wait(); err == nil || !strings.Contains(out.String(), "sealboot build failed") || !strings.Contains(out.String(), "built/web1") {
		t.Errorf("a source that is none: %v\n%s", err, out)
	}
	left(dir)

	slow, started := filepath.Join(b.dir, "slow"), filepath.Join(b.dir, "started")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\nfor arg; do case $arg in --output=*) echo half >${arg#--output=}/disk.qcow2 ;; esac; done\necho $$ >"+started+".new\nmv "+started+".new "+started+"\nexec sleep 600\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd, out = b.start(ctx, t, dir, "web1.pkr.hcl", nil, "sealboot="+slow)
	for ctx.Err() == nil {
		if _, err := os.Stat(started); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil || ctx.Err() != nil {
		t.Errorf("interrupted: %v\n%s", err, out)
	}
	left(dir)
}
