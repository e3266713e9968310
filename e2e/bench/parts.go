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

// memory: a disk of 16 GiB with 15 GiB in it, beside a small one, and a sparse one of 64 GiB.
func (b *bench) memory(ctx context.Context) error {
	key, disk := b.Path("memory.key"), b.Path("memory.qcow2")
	if err := os.WriteFile(key, []byte("0123456789abcdef0123456789abcdef"), 0o600); err != nil {
		return err
	}
	const asked = "(asked for: at most 128 MiB)"
	for _, gib := range []int64{1, 16} {
		tree := b.Path("memory")
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
		report(fmt.Sprintf("disk of %d GiB, filled: sealboot image build", gib), f, asked)
		if err := errors.Join(os.RemoveAll(tree), os.Remove(disk)); err != nil {
			return err
		}
	}
	sparse := b.Path("sparse.ext4")
	if _, err := once(ctx, []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-O", "^orphan_file,^metadata_csum_seed", sparse, "64G"}); err != nil {
		if _, err = once(ctx, []string{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", sparse, "64G"}); err != nil {
			return err
		}
	}
	f, err := once(ctx, b.sealboot("image", "build", "--source", sparse, "--key-file", key, "--output", disk))
	if err != nil {
		return err
	}
	report("file system of 64 GiB, sparse: sealboot image build", f, asked)
	return errors.Join(os.Remove(sparse), os.Remove(disk))
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
