package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	encryptSize = 4 << 30 // of the file system
	manyFiles   = 70_000
)

// keyFile has a passphrase.
func (b *bench) keyFile() (string, error) {
	name := b.Path("key")
	return name, os.WriteFile(name, []byte("0123456789abcdef0123456789abcdef"), 0o600)
}

// ownBlocks are what a file system of encryptSize has for itself: 144 MiB by dumpe2fs, and some for its folders.
const ownBlocks = 150 << 20

// encrypt: an ext4 image of 4 GiB that is full of random data, and one that is half free. All
// programs end with the data on the disk, but for the cp that says so.
func (b *bench) encrypt(ctx context.Context) error {
	key, err := b.keyFile()
	if err != nil {
		return err
	}
	full, half := b.Path("full.ext4"), b.Path("half.ext4")
	for _, source := range []struct {
		path    string
		content int64
	}{{full, encryptSize - ownBlocks}, {half, encryptSize/2 - ownBlocks}} {
		if err := b.randomFileSystem(ctx, source.path, source.content); err != nil {
			return err
		}
	}
	ours, theirs, copied := b.Path("ours.qcow2"), b.Path("theirs.luks"), b.Path("copy")
	build := func(source string, options ...string) []string {
		return b.sealboot(append([]string{"image", "build", "--source", source, "--key-file", key, "--output", ours}, options...)...)
	}
	f, err := inTurn(ctx, runs, b.emptied(ctx, ours, theirs, copied),
		build(full),
		[]string{"sh", "-c", `cp "$1" "$2" && sync "$2"`, "cp", full, copied},
		[]string{"cp", full, copied},
		// iter-time keeps the time of key stretching out of the comparison.
		[]string{"qemu-img", "convert", "-t", "writeback", "-f", "raw", "-O", "luks", "--object", "secret,id=s,file=" + key,
			"-o", "key-secret=s,iter-time=100", full, theirs},
		build(half), build(full, "--format", "raw"), build(half, "--fill"))
	if err != nil {
		return err
	}
	report("4 GiB of random data in ext4: sealboot image build", f[0],
		fmt.Sprintf("(%.2f times cp and sync, %.2f times cp alone; asked for: at most 1.25)", ratio(f[0], f[1]), ratio(f[0], f[2])),
		fmt.Sprintf("(%.2f times as fast as qemu-img; asked for: 2.5)", ratio(f[3], f[0])))
	report("the same file: cp and sync", f[1])
	report("the same file: cp alone", f[2])
	report("the same file: qemu-img convert -O luks", f[3])
	report("half of it free: sealboot image build", f[4], fmt.Sprintf("(%.2f times as fast; asked for: 2)", ratio(f[0], f[4])))
	report("to a raw disk: sealboot image build", f[5])
	report("half of it free, filled: sealboot image build", f[6])
	return errors.Join(os.Remove(full), os.Remove(half))
}

func ratio(a, b figures) float64 { return a.wall.Seconds() / b.wall.Seconds() }

// emptied gives what comes before each run: outputs removed, nothing left to write.
func (b *bench) emptied(ctx context.Context, outputs ...string) func() error {
	return func() error {
		for _, name := range outputs {
			if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return exec.CommandContext(ctx, "sync").Run()
	}
}

// randomFileSystem makes an ext4 image with one file of random data.
func (b *bench) randomFileSystem(ctx context.Context, path string, content int64) error {
	tree := b.Path("tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if err := randomFile(filepath.Join(tree, "random"), content); err != nil {
		return err
	}
	size := fmt.Sprintf("%dM", encryptSize>>20)
	// Features that e2fsprogs of Debian 12 and of 13 both know, and GRUB reads.
	if _, err := once(ctx, []string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-m", "0", "-O", "^resize_inode,^orphan_file,^metadata_csum_seed", "-d", tree, path, size}); err != nil {
		if _, err = once(ctx, []string{"mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-d", tree, path, size}); err != nil {
			return err
		}
	}
	return os.RemoveAll(tree)
}

// files: a root of 70000 files, from an archive and from a folder to the encrypted disk, beside mke2fs on that folder,
// which ends with the data in memory.
func (b *bench) files(ctx context.Context) error {
	key, err := b.keyFile()
	if err != nil {
		return err
	}
	archive, tree := b.Path("many.tar"), b.Path("many")
	if err := manyFilesArchive(archive); err != nil {
		return err
	}
	if err := os.Mkdir(tree, 0o755); err != nil {
		return err
	}
	if _, err := once(ctx, []string{"tar", "-xf", archive, "-C", tree}); err != nil {
		return err
	}
	disk, plain := b.Path("many.qcow2"), b.Path("many.ext4")
	build := func(source string) []string {
		return b.sealboot("image", "build", "--source", source, "--size", "4G", "--key-file", key, "--output", disk)
	}
	f, err := inTurn(ctx, runs, b.emptied(ctx, disk, plain),
		build(archive), build(tree),
		[]string{"mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, plain, "4G"},
		[]string{"sh", "-c", `mke2fs -q -t ext4 -b 4096 -d "$1" "$2" 4G && sync "$2"`, "mke2fs", tree, plain})
	if err != nil {
		return err
	}
	beside := func(f, theirs figures) string {
		return fmt.Sprintf("%.2f times as fast as mke2fs, %.2f by processor time", ratio(theirs, f), theirs.cpu.Seconds()/f.cpu.Seconds())
	}
	report(fmt.Sprintf("%d files from tar: sealboot image build", manyFiles), f[0], "("+beside(f[0], f[2])+"; asked for: 4)")
	report("from a folder: sealboot image build", f[1], "("+beside(f[1], f[2])+")")
	report("from that folder, not encrypted: mke2fs -d", f[2])
	report("and with the data on the disk: mke2fs -d and sync", f[3])
	return os.RemoveAll(tree)
}

// manyFilesArchive has files of 0 to 64 KiB, most of them small, as a root file system has: some 1 GiB in all.
func manyFilesArchive(path string) error {
	out, err := os.Create(path)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	content := bytes.Repeat([]byte("sealboot bench "), 64<<10/15+1)
	for i := range manyFiles {
		if i%100 == 0 {
			if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: fmt.Sprintf("./%03d/", i/100), Mode: 0o755}); err != nil {
				return err
			}
		}
		size := i * 7919 % (64 << 10) // a prime: all sizes come
		size = size * size >> 16 * 3 / 4
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: fmt.Sprintf("./%03d/file%05d", i/100, i), Mode: 0o644, Size: int64(size)}); err != nil {
			return err
		}
		if _, err := w.Write(content[:size]); err != nil {
			return err
		}
	}
	return errors.Join(w.Close(), out.Sync(), out.Close())
}
