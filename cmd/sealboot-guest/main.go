// Command sealboot-guest works inside a guest: the builder puts it there, and hooks and a systemd unit call it (package guest).
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/sealboot/sealboot/guest"
	"github.com/sealboot/sealboot/guest/grow"
	"github.com/sealboot/sealboot/guest/kernels"
	"github.com/sealboot/sealboot/internal/progress"
)

const usage = `sealboot-guest keeps a guest booting from its encrypted disk. Hooks and systemd call it:

  sealboot-guest initramfs VERSION   make the initramfs of a kernel that was installed
  sealboot-guest remove VERSION      take it away again
  sealboot-guest grow FOLDER         grow the ext4, xfs or btrfs file system that is mounted there to its device

Exit codes: 0 done, or nothing to do; 1 it did not work; 2 wrong use.
`

func main() {
	os.Exit(run(context.Background(), os.Args[1:], "/", os.Stdout, os.Stderr))
}

// run does one command in the root file system at root.
func run(ctx context.Context, args []string, root string, stdout, stderr io.Writer) int {
	if len(args) == 1 && (args[0] == "--help" || args[0] == "-h" || args[0] == "help") {
		fmt.Fprint(stdout, usage)
		return 0
	}
	commands := map[string]func(context.Context, string, string, io.Writer) error{"initramfs": update, "remove": remove, "grow": enlarge}
	if len(args) != 2 || commands[args[0]] == nil {
		fmt.Fprint(stderr, usage)
		return 2
	}
	if err := commands[args[0]](ctx, root, args[1], stdout); err != nil {
		fmt.Fprintf(stderr, "sealboot-guest: %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

func update(ctx context.Context, root, version string, stdout io.Writer) error {
	agent, err := os.ReadFile(root + guest.AgentPath)
	if err != nil {
		return err
	}
	changed, err := kernels.Update(ctx, root, version, agent)
	if err != nil {
		return fmt.Errorf("kernel %s would not be started: %w", version, err)
	}
	if changed {
		fmt.Fprintf(stdout, "sealboot: made the initramfs of kernel %s\n", version)
	}
	return nil
}

func remove(_ context.Context, root, version string, _ io.Writer) error {
	return kernels.Remove(root, version)
}

func enlarge(_ context.Context, _, folder string, stdout io.Writer) error {
	r, err := grow.Grow(folder)
	if errors.Is(err, grow.ErrKind) {
		fmt.Fprintf(stdout, "sealboot: %v: it is left as it is\n", err)
		return nil
	} else if err != nil {
		return err
	}
	if r.After > r.Before {
		fmt.Fprintf(stdout, "sealboot: grew the %s file system of %s from %s to %s, on a device of %s\n",
			r.Kind, folder, progress.Bytes(r.Before), progress.Bytes(r.After), progress.Bytes(r.Device))
	}
	return nil
}
