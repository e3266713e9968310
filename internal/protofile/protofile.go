// Package protofile describes a folder to mkfs.xfs (option -p), the only way to fill an XFS file system without mounting it. Tests and
// the lab make roots with it.
//
// The description has no times, no extended attributes, no sticky bits, and hard links become files of their own.
package protofile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrName says that a name cannot be described: white space divides words.
var ErrName = errors.New("a name with white space")

// Write describes dir and all that is in it; sockets are left out. mkfs.xfs reads the files themselves. What an ordinary user unpacked
// is described as root's.
func Write(to io.Writer, dir string) error {
	w := bufio.NewWriter(to)
	depth := 0
	closeTo := func(d int) {
		for ; depth > d; depth-- {
			fmt.Fprintln(w, "$")
		}
	}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		name := entry.Name()
		if strings.ContainsAny(path, " \t\n") {
			return fmt.Errorf("%w: %q", ErrName, path)
		}
		kind, argument := byte(0), ""
		stat := info.Sys().(*syscall.Stat_t)
		switch info.Mode().Type() {
		case 0:
			kind, argument = '-', path
		case fs.ModeDir:
			kind = 'd'
		case fs.ModeSymlink:
			kind = 'l'
			if argument, err = os.Readlink(path); err != nil {
				return err
			}
		case fs.ModeNamedPipe:
			kind = 'p'
		case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
			kind = 'b'
			if info.Mode()&fs.ModeCharDevice != 0 {
				kind = 'c'
			}
			argument = fmt.Sprintf("%d %d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
		default:
			return nil
		}
		uid, gid := stat.Uid, stat.Gid
		if os.Geteuid() != 0 {
			uid, gid = 0, 0
		}
		mode := []byte{kind, '-', '-'}
		if info.Mode()&fs.ModeSetuid != 0 {
			mode[1] = 'u'
		}
		if info.Mode()&fs.ModeSetgid != 0 {
			mode[2] = 'g'
		}
		line := strings.TrimSpace(fmt.Sprintf("%s%03o %d %d %s", mode, info.Mode().Perm(), uid, gid, argument))
		if path == dir { // what a boot sector would be, and two numbers that nobody reads
			_, err := fmt.Fprintf(w, "/\n0 0\n%s\n", line)
			depth = 1
			return err
		}
		rest, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		closeTo(1 + strings.Count(rest, "/"))
		if kind == 'd' {
			depth++
		}
		_, err = fmt.Fprintf(w, "%s %s\n", name, line)
		return err
	})
	if err != nil {
		return err
	}
	closeTo(0)
	return w.Flush()
}
