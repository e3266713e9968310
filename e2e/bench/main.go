// Command bench measures sealboot beside the tools that a user would otherwise take, in one
// run: whole processes, runs of both in turn, medians. It is the second half of `make bench`.
package main

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
)

const runs = 5

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	only := flag.String("only", "", "one of: commands, digests, keyserver, encrypt, files, memory, boot")
	temp := flag.String("dir", os.TempDir(), "folder for the data, some 40 GiB")
	flag.Parse()
	if err := run(ctx, *only, *temp); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, only, temp string) (err error) {
	project, err := os.Getwd()
	if err != nil {
		return err
	}
	deps := os.Getenv("SEALBOOT_DEPS")
	if deps == "" {
		deps = filepath.Join(project, ".cache", "deps")
	}
	dir, err := os.MkdirTemp(temp, "sealboot-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	// As users have them: what was installed lies in the page cache in larger pieces than what the linker has just written, and starts
	// in 0.3 ms less.
	if out, err := exec.CommandContext(ctx, "make", "-s", "install", "PREFIX="+dir).CombinedOutput(); err != nil {
		return fmt.Errorf("make install: %w\n%s", err, out)
	}
	b := &bench{Lab: &lab.Lab{Bin: filepath.Join(dir, "bin"), Deps: deps, Dir: dir, Log: io.Discard}}
	parts := []struct {
		name string
		run  func(context.Context) error
	}{{"commands", b.commands}, {"digests", b.digests}, {"keyserver", b.keyServer}, {"encrypt", b.encrypt}, {"files", b.files}, {"memory", b.memory}, {"boot", b.boot}}
	known := false
	for _, part := range parts {
		if only != "" && only != part.name {
			continue
		}
		known = true
		if err := part.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	if !known {
		return fmt.Errorf("no part %q", only)
	}
	return nil
}

type bench struct{ *lab.Lab }

func (b *bench) sealboot(args ...string) []string {
	return append([]string{filepath.Join(b.Bin, "sealboot")}, args...)
}

// figures are of one run of a program.
type figures struct {
	wall time.Duration
	cpu  time.Duration // of all its threads, in user and system mode
	peak int64         // bytes of resident memory at most
}

// once runs a command. A failure for a reason of qemu-img's own is tried again, and not counted: it measures
// how fast the machine stretches keys, and gives up when that goes by too fast for its clock.
func once(ctx context.Context, command []string) (figures, error) {
	for tries := 0; ; tries++ {
		f, err := try(ctx, command)
		if err == nil || tries == 20 || !strings.Contains(err.Error(), "Unable to get accurate CPU usage") {
			return f, err
		}
	}
}

func try(ctx context.Context, command []string) (figures, error) {
	out, err := os.CreateTemp("", "sealboot-bench-") // a pipe and its reader would be in a short command's time
	if err != nil {
		return figures{}, err
	}
	defer out.Close()
	if err := os.Remove(out.Name()); err != nil {
		return figures{}, err
	}
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	begun := time.Now()
	err = cmd.Run()
	wall := time.Since(begun)
	if err != nil {
		text, readErr := io.ReadAll(io.NewSectionReader(out, 0, 1<<20))
		return figures{}, fmt.Errorf("%s: %w\n%s", strings.Join(command, " "), errors.Join(err, readErr), text)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		return figures{}, errors.New("no account of the process's memory")
	}
	return figures{wall, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss << 10}, nil
}

// inTurn runs the commands one after the other, several times over, and gives the medians. prepare is
// called before each run.
func inTurn(ctx context.Context, times int, prepare func() error, commands ...[]string) ([]figures, error) {
	all := make([][]figures, len(commands))
	for range times {
		for i, command := range commands {
			if err := prepare(); err != nil {
				return nil, err
			}
			f, err := once(ctx, command)
			if err != nil {
				return nil, err
			}
			all[i] = append(all[i], f)
		}
	}
	medians := make([]figures, len(commands))
	for i, list := range all {
		slices.SortFunc(list, func(a, b figures) int { return int(a.wall - b.wall) })
		medians[i] = list[len(list)/2]
	}
	return medians, nil
}

func report(what string, f figures, notes ...string) {
	fmt.Printf("%-58s %9.3f s  processors %7.3f s  peak %6.1f MiB  %s\n", what, f.wall.Seconds(), f.cpu.Seconds(), float64(f.peak)/(1<<20), strings.Join(notes, " "))
}

// randomFile writes a file that nothing can compress, from a cipher's key stream.
func randomFile(path string, size int64) error {
	block, err := aes.NewCipher(make([]byte, 32))
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	stream := cipher.StreamReader{S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{}}
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(stream, size), make([]byte, 1<<20)); err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
