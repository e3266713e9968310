package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
)

// commands: firmware, whole processes.
func (b *bench) commands(ctx context.Context) error {
	efi, bundled := b.Path("grub.efi"), b.Path("firmware.fd")
	none := func() error { return nil }
	made, err := inTurn(ctx, runs, none, b.sealboot("grub", "build", "--tools", filepath.Join(b.Deps, "root"), "--output", efi))
	if err != nil {
		return err
	}
	report("sealboot grub build", made[0])
	made, err = inTurn(ctx, runs, none,
		b.sealboot("ovmf", "bundle", "--firmware", b.firmware(), "--grub", efi, "--output", bundled))
	if err != nil {
		return err
	}
	report("sealboot ovmf bundle (4 MiB firmware)", made[0], "(asked for: under 3 s)")
	return nil
}

// encrypt: 2 GiB of random data in an ext4 image, beside qemu-img and cp of the same file. All of them end
// with the data on the disk.
func (b *bench) encrypt(ctx context.Context) error {
	tree, source, key := b.Path("tree"), b.Path("source.ext4"), b.Path("key")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := randomFile(filepath.Join(tree, "random"), 2<<30); err != nil {
		return err
	}
	if err := os.WriteFile(key, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		return err
	}
	// Features that e2fsprogs of Debian 12 and of 13 both know, and GRUB reads.
	if _, err := once(ctx, []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^resize_inode,^orphan_file,^metadata_csum_seed", "-d", tree, source, "2200M"}); err != nil {
		if _, err = once(ctx, []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, source, "2200M"}); err != nil {
			return err
		}
	}
	ours, theirs, tar, copied := b.Path("ours.qcow2"), b.Path("theirs.luks"), b.Path("tree.qcow2"), b.Path("copy")
	prepare := func() error {
		for _, name := range []string{ours, theirs, tar, copied} {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return exec.CommandContext(ctx, "sync").Run()
	}
	f, err := inTurn(ctx, runs, prepare,
		b.sealboot("image", "build", "--source", source, "--key-file", key, "--output", ours),
		// iter-time keeps the time of key stretching out of the comparison.
		[]string{"qemu-img", "convert", "-t", "writeback", "-f", "raw", "-O", "luks", "--object", "secret,id=s,file=" + key,
			"-o", "key-secret=s,iter-time=100", source, theirs},
		[]string{"sh", "-c", `cp "$1" "$2" && sync "$2"`, "cp", source, copied},
		b.sealboot("image", "build", "--source", tree, "--size", "2300M", "--key-file", key, "--output", tar))
	if err != nil {
		return err
	}
	beside := func(other figures, what string) string {
		return fmt.Sprintf("(%.2f times as fast as %s)", other.wall.Seconds()/f[0].wall.Seconds(), what)
	}
	report("2 GiB random data in ext4: sealboot image build", f[0], beside(f[1], "qemu-img"), beside(f[2], "cp"))
	report("the same file: qemu-img convert -O luks", f[1])
	report("the same file: cp", f[2])
	report("the same data from a folder: sealboot image build", f[3])
	return os.RemoveAll(tree)
}

// memory: a disk of 16 GiB with 15 GiB in it, beside a small one.
func (b *bench) memory(ctx context.Context) error {
	key := b.Path("memory.key")
	if err := os.WriteFile(key, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		return err
	}
	for _, gib := range []int64{1, 16} {
		tree, disk := b.Path("memory"), b.Path("memory.qcow2")
		if err := os.Mkdir(tree, 0o755); err != nil {
			return err
		}
		if err := randomFile(filepath.Join(tree, "random"), gib<<30-gib<<26); err != nil {
			return err
		}
		f, err := once(ctx, b.sealboot("image", "build", "--source", tree, "--size", fmt.Sprintf("%dG", gib), "--key-file", key, "--output", disk))
		if err != nil {
			return err
		}
		report(fmt.Sprintf("disk of %d GiB, filled: sealboot image build", gib), f, "(asked for: at most 200 MiB)")
		if err := errors.Join(os.RemoveAll(tree), os.Remove(disk)); err != nil {
			return err
		}
	}
	return nil
}

// boot: power-on to the root file system, with our key slot and with cryptsetup's default PBKDF2 one, on the same disk.
func (b *bench) boot(ctx context.Context) (err error) {
	secret := make([]byte, 32)
	rootfs := b.Path("rootfs.tar")
	if err := lab.MakeRootFS(ctx, b.Deps, rootfs, secret); err != nil {
		return err
	}
	image, _, err := b.Build(ctx, "image", rootfs, "512M")
	if err != nil {
		return err
	}
	if err := b.Register(ctx, image); err != nil {
		return err
	}
	server, err := b.Serve(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	boot := func(disk string) (figures, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
		defer cancel()
		o, err := b.Launch(ctx, lab.Machine{Image: image, Server: server.URL, Disk: disk})
		if err == nil && o.Proof != lab.WantProof(o.Nonce, secret) {
			err = fmt.Errorf("the guest gave no proof\n%s%s", o.Console, o.Stderr)
		}
		return figures{wall: o.ToRoot}, err
	}
	var ours []figures
	for range 3 {
		f, err := boot(image.Disk())
		if err != nil {
			return err
		}
		ours = append(ours, f)
	}
	best := ours[1]
	slow, iterations, err := b.defaultSlot(ctx, image)
	if err != nil {
		return err
	}
	theirs, err := boot(slow)
	if err != nil {
		return err
	}
	fmt.Printf("%-58s %9.3f s\n", "power-on to root, sealboot's key slot", best.wall.Seconds())
	fmt.Printf("%-58s %9.3f s  (%d iterations; ours is %.0f times as fast)\n", "power-on to root, cryptsetup's default PBKDF2 slot",
		theirs.wall.Seconds(), iterations, theirs.wall.Seconds()/best.wall.Seconds())
	return nil
}

// defaultSlot copies the image's disk and has cryptsetup make its key slot anew, with PBKDF2 as it
// chooses it. It returns the disk and the slot's number of iterations. The boot record
// stays right: a header's pin does not cover key slots.
func (b *bench) defaultSlot(ctx context.Context, image lab.Image) (disk string, iterations int, err error) {
	raw, header, disk := b.Path("slow.raw"), b.Path("slow.header"), b.Path("slow.qcow2")
	for _, command := range [][]string{
		{"qemu-img", "convert", "-f", "qcow2", "-O", "raw", image.Disk(), raw},
		{"dd", "if=" + raw, "of=" + header, "bs=1M", "skip=1", "count=17", "status=none"},
		{"cryptsetup", "luksConvertKey", "--batch-mode", "--pbkdf", "pbkdf2", "--key-file", image.Passphrase(), header},
		{"dd", "if=" + header, "of=" + raw, "bs=1M", "seek=1", "count=16", "conv=notrunc", "status=none"},
		{"qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, disk},
	} {
		if _, err := once(ctx, command); err != nil {
			return "", 0, err
		}
	}
	out, err := exec.CommandContext(ctx, "cryptsetup", "luksDump", "--dump-json-metadata", header).Output()
	if err != nil {
		return "", 0, fmt.Errorf("read the converted header: %w", err)
	}
	var dump struct {
		Keyslots map[string]struct {
			KDF struct {
				Iterations int `json:"iterations"`
			} `json:"kdf"`
		} `json:"keyslots"`
	}
	if err := json.Unmarshal(out, &dump); err != nil {
		return "", 0, err
	}
	for _, slot := range dump.Keyslots {
		iterations = max(iterations, slot.KDF.Iterations)
	}
	return disk, iterations, nil
}
