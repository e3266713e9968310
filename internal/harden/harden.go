// Package harden keeps a process's memory to itself, as far as a process can do that alone: no core dump and no
// debugger of the same user, and where the system allows it no page in the swap.
//
// It is for Linux. What it gives is little against root, and nothing against the kernel; it closes the ways by which keys
// reach a disk without anybody's attack. Two ways stay open: hibernation, and the memory of a machine that is itself a guest.
package harden

import (
	"errors"
	"fmt"
	"log/slog"
	"os"

	"golang.org/x/sys/unix"
)

// Process does all of it at the start of a program that holds keys. That there is a core dump is an error; that memory may be swapped, or
// that the program runs as root, which it does not need, is a warning.
func Process(log *slog.Logger) error {
	if err := NoDumps(); err != nil {
		return err
	}
	if err := LockMemory(); err != nil {
		log.Warn("memory may be swapped to disk: turn swap off, encrypt it, or allow it to be locked (LimitMEMLOCK=infinity)", "error", err)
	}
	if os.Geteuid() == 0 {
		log.Warn("running as root, which is not needed: give it a user of its own")
	}
	return nil
}

// NoDumps lets the kernel write no core dump, and other processes of the same user neither trace this one nor read its memory
// (prctl(2), PR_SET_DUMPABLE).
func NoDumps() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("turn core dumps off: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("turn core dumps off: %w", err)
	}
	return nil
}

// ErrLimit says that the process may not lock all of its memory.
var ErrLimit = errors.New("limit on locked memory (RLIMIT_MEMLOCK) is too low")

// LockMemory keeps all pages of the process, now and later, out of the swap, each from when it is first used. Single
// keys cannot be: Go's libraries copy them where they like. It is done only where no limit on locked memory holds, for under one a later
// allocation fails, which ends the program.
func LockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	header, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	if !unlimited(limit.Cur, data[0].Effective) {
		return fmt.Errorf("lock memory: %w: %d bytes", ErrLimit, limit.Cur)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return fmt.Errorf("lock memory: %w", err)
	}
	return nil
}

// unlimited says whether there is no limit, or the capability (of the lower 32) for which it does not hold (mlock(2)).
func unlimited(limit uint64, capabilities uint32) bool {
	return limit == unix.RLIM_INFINITY || capabilities&(1<<unix.CAP_IPC_LOCK) != 0
}
