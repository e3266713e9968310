package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	diskWait = 10 * time.Second // for the disk to appear
	workWait = 5 * time.Minute  // for everything: key stretching for people's passphrases is slow under emulation
)

// Main is the agent as process 1. It never returns: it becomes the next init, or the machine is
// powered off. args and env go to the next init.
func Main(args, env []string) {
	stopped := make(chan error, 1)
	// In a goroutine of its own, since reading a disk can hang for as long as the host likes.
	go func() {
		err := errors.New("unexpected end")
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			stopped <- err
		}()
		err = boot(args, env)
	}()
	var why error
	select {
	case why = <-stopped:
	case <-time.After(workWait):
		why = fmt.Errorf("not done after %v", workWait)
	}
	stop(why)
}

// boot does what the package promises, and returns only with an error.
func boot(args, env []string) error {
	if err := mountAll(); err != nil {
		return err
	}
	keys, err := TakeKeys(KeyFolder)
	if err != nil {
		return err
	}
	defer keys.Wipe()
	resume, err := rebootOnPanic()
	if err != nil {
		return err
	}
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	order, err := ParseOrder(string(line))
	if err != nil {
		return err
	}
	list, err := os.ReadFile(ModuleList)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrModules, err)
	}
	if err := LoadModules(string(list), loadModule); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), diskWait)
	defer cancel()
	found, err := Find(ctx, kernelDisks{}, order.Disk)
	if err != nil {
		return err
	}
	hasBoot, err := Unlock(found, keys, deviceMapper{})
	if err == nil && keys.Receipt != nil {
		err = leaveReceipt("/", keys.Receipt)
	}
	found.Disk.Close()
	keys.Wipe()
	if err != nil {
		return err
	}
	say("root opened on " + found.Name)
	if hasBoot {
		if order.FileSystem == "" {
			return ErrNoKind
		}
		if err := completeRoot(context.Background(), order); err != nil {
			return err
		}
	}
	if err := resume(); err != nil {
		return err
	}
	return handOver(order, args, env)
}

// rebootOnPanic has the kernel restart at once if this program dies after all, out of memory perhaps, instead of
// waiting for nobody; a machine that restarts has no secret. The function that it gives puts the owner's setting back.
func rebootOnPanic() (func() error, error) {
	const setting = "/proc/sys/kernel/panic" // Linux Documentation/admin-guide/sysctl/kernel
	before, err := os.ReadFile(setting)
	if err != nil {
		return nil, err
	}
	return func() error { return os.WriteFile(setting, before, 0) }, os.WriteFile(setting, []byte("-1"), 0)
}
