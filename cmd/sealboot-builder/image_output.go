package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
)

// shapeFlags are of commands that make a disk.
type shapeFlags struct {
	format, preallocation string
	cluster               cli.ByteSize
	fill, force           bool
}

// add offers what goes for a QCOW2 image.
func (s *shapeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.Var(&s.cluster, "cluster-size", "unit in which a QCOW2 image grows, 4K to 2M (default 64K)")
	flags.StringVar(&s.preallocation, "preallocation", string(image.PreallocationOff), "room for what is not written, as for qemu-img: off, metadata, falloc or full")
	flags.BoolVar(&s.fill, "fill", false, "write free blocks too, so that nobody sees how much of the disk is in use")
	complete := func(flag string, values ...string) {
		cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
	}
	complete("preallocation", string(image.PreallocationOff), string(image.PreallocationMetadata), string(image.PreallocationFalloc), string(image.PreallocationFull))
	complete("cluster-size", "4K", "64K", "2M")
}

// addRaw offers raw disks too.
func (s *shapeFlags) addRaw(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&s.format, "format", string(image.QCOW2), "format of the output: qcow2 or raw")
	flags.BoolVar(&s.force, "force", false, "write over what is on a block device")
	cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{string(image.QCOW2), string(image.Raw)}, cobra.ShellCompDirectiveNoFileComp))
}

func (s *shapeFlags) output() image.Output {
	return image.Output{
		Format: image.Format(s.format), ClusterSize: int64(s.cluster), Preallocation: image.Preallocation(s.preallocation),
		Fill: s.fill, Force: s.force,
	}
}

// outputDisk is a disk under way: a file that appears when it is whole, or a block device.
type outputDisk struct {
	whole  *atomicfile.File
	device *os.File
}

// createDisk begins an output. A block device is taken for this program alone: the kernel refuses one that is
// mounted, or that other devices lie on.
func createDisk(name string) (*outputDisk, error) {
	if info, err := os.Stat(name); err == nil && info.Mode().Type() == os.ModeDevice {
		device, err := os.OpenFile(name, os.O_RDWR|unix.O_EXCL, 0)
		if errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("%w: unmount it, or detach what uses it", err)
		} else if err != nil {
			return nil, err
		}
		return &outputDisk{device: device}, nil
	}
	whole, err := atomicfile.Create(name, 0o644)
	if err != nil {
		return nil, err
	}
	return &outputDisk{whole: whole}, nil
}

func (f *outputDisk) file() *os.File {
	if f.device != nil {
		return f.device
	}
	return f.whole.File
}

// Commit makes the disk durable.
func (f *outputDisk) Commit() error {
	if f.device != nil {
		return errors.Join(f.device.Sync(), f.device.Close())
	}
	return f.whole.Commit()
}

// Close gives a file up that was not committed.
func (f *outputDisk) Close() error {
	if f.device != nil {
		return f.device.Close()
	}
	return f.whole.Close()
}
