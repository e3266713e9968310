package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/image/fsys"
	"github.com/sealboot/sealboot/image/unpack"
	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
)

// browsed is a file system inside a disk that is read.
type browsed struct {
	*image.Files
	file *os.File
}

func (b *browsed) Close() error { return b.file.Close() }

// browseFlags say how files in a disk are reached.
type browseFlags struct{ keyFile, subvolume string }

func (f *browseFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.keyFile, "key-file", "", "file with a passphrase that opens the disk (- for standard input)")
	cmd.Flags().StringVar(&f.subvolume, "subvolume", "", "path of another subvolume of a Btrfs root than the system's; / for all")
	cmd.MarkFlagRequired("key-file")
}

// browse opens the file system of a disk.
func (a *app) browse(ctx context.Context, disk string, flags browseFlags) (*browsed, error) {
	passphrase, err := cli.ReadKeyFile(flags.keyFile, a.stdin)
	if err != nil {
		return nil, err
	}
	defer clear(passphrase)
	f, size, err := openImage(disk)
	if err != nil {
		return nil, err
	}
	b := &browsed{file: f}
	if d, openErr := image.Open(ctx, f, size); openErr != nil {
		err = openErr
	} else {
		b.Files, err = d.Files(passphrase, time.Now(), flags.subvolume)
	}
	if errors.Is(err, fsys.ErrNotFound) { // the subvolume
		err = cli.Refusef("%s: %w", disk, err)
	} else if err != nil {
		err = imageErr(disk, err)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	if err := lockReading(f); errors.Is(err, errInUse) {
		fmt.Fprintf(a.stderr, "sealboot: warning: %s: a machine is writing to it: what is read may be half written\n", disk)
	}
	if b.Replay != nil {
		fmt.Fprintf(a.stderr, "sealboot: warning: %s: what changed last may be missing: %v; the journal cannot be replayed: %v\n", disk, b.Unclean, b.Replay)
	} else if b.Unclean != nil {
		fmt.Fprintf(a.stderr, "sealboot: %s was not unmounted cleanly: its journal is replayed in memory, the disk stays as it is\n", disk)
	}
	return b, nil
}

// find finds a path. That it is missing is a clear no.
func (b *browsed) find(name string) (*fsys.Node, error) {
	node, err := b.Node(name)
	if errors.Is(err, fsys.ErrNotFound) {
		return nil, cli.Refusef("%w", err)
	}
	return node, err
}

func (a *app) imageCatCommand() *cobra.Command {
	var flags browseFlags
	cmd := &cobra.Command{
		Use:   "cat DISK --key-file FILE PATH",
		Short: "Print a file inside an encrypted disk, without mounting it",
		Long: `cat decrypts a regular file and writes it to standard output as it is. Symbolic links in PATH are followed, inside the
disk. Exit code 3: the passphrase does not open the disk, or there is no such file.`,
		Example: "  sealboot image cat disk.qcow2 --key-file passphrase /etc/fstab",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.browse(cmd.Context(), args[0], flags)
			if err != nil {
				return err
			}
			defer b.Close()
			node, err := b.find(args[1])
			if err != nil {
				return imageErr(args[0], err)
			}
			content, err := node.Open()
			if errors.Is(err, fsys.ErrNotFound) {
				return cli.Refusef("%s: %s is not a regular file: see image ls", args[0], args[1])
			} else if err != nil {
				return imageErr(args[0], err)
			}
			if _, err := io.CopyBuffer(struct{ io.Writer }{a.stdout}, &untilDone{cmd.Context(), content}, make([]byte, 1<<20)); err != nil {
				return fmt.Errorf("%s: %s: %w", args[0], args[1], err)
			}
			return nil
		},
	}
	flags.add(cmd)
	return cmd
}

// untilDone stops reading when the command is interrupted.
type untilDone struct {
	ctx context.Context
	io.Reader
}

func (r *untilDone) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

func (a *app) imageExtractCommand() *cobra.Command {
	var flags browseFlags
	var output, archive string
	cmd := &cobra.Command{
		Use:   "extract DISK --key-file FILE PATH (--output NAME | --tar FILE)",
		Short: "Take a file or a folder out of an encrypted disk, without mounting it",
		Long: `extract decrypts a file, or a folder with all below it. Symbolic links in PATH are followed, inside the disk; those
below it are taken as they are.

With --output it becomes a new file or folder of that name, which appears when it is whole. Modes, times, links and holes are kept; nothing
in the disk can lead to a place outside it. For root, owners, devices and named pipes are kept too; for others all belongs
to them, devices and named pipes are left out, and set-user-ID and set-group-ID bits are taken off.

With --tar it becomes a tar archive (- for standard output) with owners, devices and extended
attributes, for any user. Names in it begin with ./ at PATH. An archive has no holes.

Exit code 3: the passphrase does not open the disk, or there is no such file.`,
		Example: `  sealboot image extract disk.qcow2 --key-file passphrase /etc --output etc
  sealboot image extract disk.qcow2 --key-file passphrase / --tar - | zstd > root.tar.zst`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.browse(cmd.Context(), args[0], flags)
			if err != nil {
				return err
			}
			defer b.Close()
			node, err := b.find(args[1])
			if err != nil {
				return imageErr(args[0], err)
			}
			if archive != "" {
				err = a.extractTar(cmd.Context(), node, archive, b.Size, path.Base(path.Clean("/"+args[1])))
			} else {
				err = a.extractFolder(cmd.Context(), node, output, b.Size)
			}
			if err != nil {
				return fmt.Errorf("extract %s from %s: %w", args[1], args[0], err)
			}
			return nil
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&output, "output", "", "new file or folder")
	cmd.Flags().StringVar(&archive, "tar", "", "tar archive to write (- for standard output)")
	cmd.MarkFlagsOneRequired("output", "tar")
	cmd.MarkFlagsMutuallyExclusive("output", "tar")
	return cmd
}

func (a *app) extractFolder(ctx context.Context, node *fsys.Node, output string, size int64) error {
	if strings.HasSuffix(output, string(filepath.Separator)) {
		output = strings.TrimRight(output, string(filepath.Separator))
	}
	made, err := unpack.Folder(ctx, output, node.Tree, unpack.Options{Most: size, AsRoot: os.Geteuid() == 0})
	if err != nil {
		return err
	}
	if made.Devices > 0 && os.Geteuid() != 0 {
		fmt.Fprintf(a.stderr, "sealboot: %d devices and named pipes are left out: only root can make them, but --tar keeps them\n", made.Devices)
	}
	return nil
}

func (a *app) extractTar(ctx context.Context, node *fsys.Node, output string, size int64, name string) error {
	if output == "-" {
		out := bufio.NewWriterSize(a.stdout, 1<<20)
		if err := unpack.Tar(ctx, out, node.Tree, size, name); err != nil {
			return err
		}
		return out.Flush()
	}
	f, err := atomicfile.Create(output, 0o600) // what was encrypted is for its owner alone
	if err != nil {
		return err
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	if err := unpack.Tar(ctx, out, node.Tree, size, name); err != nil {
		return err
	}
	if err := out.Flush(); err != nil {
		return err
	}
	return f.Commit()
}
