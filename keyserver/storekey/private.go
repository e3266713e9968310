package storekey

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Bounds of the files that are read.
const (
	maxWrapped  = 32 << 10 // a key text, wrapped: some hundred bytes, with a post-quantum recipient of age two thousand each
	maxIdentity = 32 << 10
	maxToken    = 4 << 10
	maxCA       = 256 << 10
)

// ErrTooLarge says that a file is larger than what it should hold can be.
var ErrTooLarge = errors.New("file is too large")

// AccessError is a file that holds a secret and that others may read.
type AccessError struct {
	Name string
	Mode os.FileMode
	UID  uint32 // of the owner
}

func (e *AccessError) Error() string {
	if e.Mode.Perm()&0o077 == 0 {
		return fmt.Sprintf("%s belongs to user %d, who can read it: chown it to the key server's user or to root", e.Name, e.UID)
	}
	return fmt.Sprintf("others may read %s (mode %04o): chmod 0600 it", e.Name, e.Mode.Perm())
}

// reader reads files that hold secrets.
type reader struct {
	credentials string // systemd's folder, "" for none
	uid         int
}

// private reads a file that only its owner may read. In systemd's folder of credentials the group may read too: for a unit
// with a user of its own systemd gives root's file an access list, whose mask shows as the group's permission
// (github.com/systemd/systemd/issues/29435). The caller wipes what it gets.
//
// A pipe is taken as well, for key texts that another program brings.
func (r reader) private(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return r.opened(f, name, limit)
}

func (r reader) opened(f *os.File, name string, limit int) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().IsRegular() {
		if err := r.check(name, info); err != nil {
			return nil, err
		}
	}
	return bounded(f, name, limit)
}

func (r reader) check(name string, info os.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its file system does not say whose it is", name)
	}
	forbidden := os.FileMode(0o077)
	if stat.Uid == 0 && r.within(name) {
		forbidden = 0o037
	}
	if info.Mode().Perm()&forbidden != 0 || stat.Uid != 0 && int(stat.Uid) != r.uid {
		return &AccessError{Name: name, Mode: info.Mode(), UID: stat.Uid}
	}
	return nil
}

// within says whether the file lies directly in systemd's folder.
func (r reader) within(name string) bool {
	return r.credentials != "" && filepath.Dir(filepath.Clean(name)) == filepath.Clean(r.credentials)
}

// bounded reads all of a file that has at most limit bytes. On an error nothing that was read stays behind.
func bounded(f io.Reader, name string, limit int) ([]byte, error) {
	buffer := make([]byte, limit+1)
	n, err := io.ReadFull(f, buffer)
	if err == nil {
		clear(buffer)
		return nil, fmt.Errorf("%w: %s has more than %d bytes", ErrTooLarge, name, limit)
	}
	if err != io.EOF && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(buffer)
		return nil, err
	}
	return buffer[:n], nil
}

// ReadPrivate reads a file with a secret in it under the rules of key files: nobody but its owner may read it, who is the caller or
// root; in systemd's folder of credentials the group may. The caller wipes what it gets.
func ReadPrivate(name string, limit int, o Outside) ([]byte, error) {
	return o.reader().private(name, limit)
}

// public reads a file whose content is no secret.
func public(name string, limit int) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return bounded(f, name, limit)
}

// oneLine takes off one line feed at the end, and says whether what is left is of visible ASCII characters.
func oneLine(b []byte) (string, bool) {
	s := strings.TrimSuffix(string(b), "\n")
	return s, s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
