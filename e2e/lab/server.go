package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Image is what `sealboot build` made, and its name at the key server.
type Image struct {
	Name, Dir string
}

// Disk, Firmware, Record and Passphrase are the files of an image.
func (i Image) Disk() string       { return filepath.Join(i.Dir, "disk.qcow2") }
func (i Image) Firmware() string   { return filepath.Join(i.Dir, "firmware.fd") }
func (i Image) Record() string     { return filepath.Join(i.Dir, "record.json") }
func (i Image) Passphrase() string { return filepath.Join(i.Dir, "passphrase") }

// Build makes an image from a root file system, and says how long each stage took.
func (l *Lab) Build(ctx context.Context, name, rootfs, size string, args ...string) (Image, map[string]float64, error) {
	image := Image{Name: name, Dir: l.Path(name)}
	out, err := l.Must(ctx, append([]string{"build", "--source", rootfs, "--size", size, "--output", image.Dir,
		"--tools", filepath.Join(l.Deps, "root"), "--json"}, args...)...)
	if err != nil {
		return Image{}, nil, err
	}
	var made struct {
		Seconds map[string]float64 `json:"seconds"`
	}
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		return Image{}, nil, fmt.Errorf("read what build printed: %w", err)
	}
	return image, made.Seconds, nil
}

// Store is a key server's store.
type Store struct {
	Location string // folder, or URL of a PostgreSQL database
	Key      string // place of the store key; default: beside the folder
}

// storeFlags name the lab's store to a command.
func (l *Lab) storeFlags() []string {
	flags := []string{"--store", or(l.Store.Location, l.Path("keys"))}
	if l.Store.Key != "" {
		flags = append(flags, "--store-key", l.Store.Key)
	}
	return flags
}

// Keyserver runs a command of the key server on the lab's store, which has to succeed.
func (l *Lab) Keyserver(ctx context.Context, args ...string) (string, error) {
	return l.Must(ctx, append(append([]string{"keyserver"}, args...), l.storeFlags()...)...)
}

// Register gives an image to the key server, under the image's name.
func (l *Lab) Register(ctx context.Context, image Image, args ...string) error {
	_, err := l.Keyserver(ctx, append([]string{"register", "--record", image.Record(), "--key-file", image.Passphrase(), "--name", image.Name}, args...)...)
	return err
}

// Server is a key server under way.
type Server struct {
	URL string
	CA  string // file of the CA that its certificate is from; empty without TLS
	log *buffer
	cmd *exec.Cmd

	ended chan struct{} // closed when the process has ended
	err   error         // then
}

// Serve starts the key server on loopback, with plain HTTP. It trusts the stand-in's platform, and AMD's.
func (l *Lab) Serve(ctx context.Context, args ...string) (*Server, error) {
	root, err := l.trustRoot(ctx)
	if err != nil {
		return nil, err
	}
	return l.serve(append(append([]string{"--listen", "127.0.0.1:0", "--trust-root", root}, l.storeFlags()...), args...)...)
}

// ServeTLS starts the key server as its owner would: by a configuration, over TLS, with a CA of its own.
func (l *Lab) ServeTLS(ctx context.Context) (*Server, error) {
	root, err := l.trustRoot(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.Dir, "server-")
	if err != nil {
		return nil, err
	}
	if _, err := l.Must(ctx, "keyserver", "ca", "init", dir, "--host", "127.0.0.1", "--host", HostInGuest); err != nil {
		return nil, err
	}
	store := fmt.Sprintf("folder = %q", l.Store.Location)
	if strings.Contains(l.Store.Location, "://") {
		store = fmt.Sprintf("url = %q", l.Store.Location)
	}
	config := filepath.Join(dir, "keyserver.toml")
	text := fmt.Sprintf("listen = \"127.0.0.1:0\"\nstore_key = %q\ntrust_roots = [%q]\n[store]\n%s\n[tls]\ncert = \"%[4]s/server.crt\"\nkey = \"%[4]s/server.key\"\n",
		l.Store.Key, root, store, dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	if _, err := l.Must(ctx, "keyserver", "config", "check", config); err != nil {
		return nil, err
	}
	s, err := l.serve("--config", config)
	if err != nil {
		return nil, err
	}
	s.CA = filepath.Join(dir, "ca.crt")
	return s, nil
}

func (l *Lab) serve(args ...string) (*Server, error) {
	address := l.Path("address")
	os.Remove(address)
	args = append([]string{"serve", "--address-file", address}, args...)
	fmt.Fprintf(l.Log, "$ sealboot-keyserver %s &\n", strings.Join(args, " "))
	s := &Server{log: new(buffer), cmd: exec.Command(filepath.Join(l.Bin, "sealboot-keyserver"), args...), ended: make(chan struct{})}
	s.cmd.Stderr = s.log
	// The server ends with whoever started it, even if that one is killed. The signal is that of a thread's death: the thread
	// must live as long as the server, and `sealboot keyserver` could lose it in becoming the server.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
			close(s.ended)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	for begun := time.Now(); time.Since(begun) < 20*time.Second; time.Sleep(10 * time.Millisecond) {
		if url, err := os.ReadFile(address); err == nil {
			s.URL = strings.TrimSpace(string(url))
			return s, nil
		}
	}
	return nil, errors.Join(fmt.Errorf("the key server did not begin to listen: %s", s.log), s.Stop())
}

// PID is the server's process.
func (s *Server) PID() int { return s.cmd.Process.Pid }

// Stop ends the server as its owner would.
func (s *Server) Stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	<-s.ended
	return s.err
}

// Decision is a row of the key server's audit log.
type Decision struct {
	Event, Class, Cause, Reason, Image, Session string
}

// Audit reads the key server's audit log and has its chain checked.
func (l *Lab) Audit(ctx context.Context) ([]Decision, error) {
	out, err := l.Keyserver(ctx, "audit", "list", "--json")
	if err != nil {
		return nil, err
	}
	var rows []Decision
	for line := range strings.Lines(out) {
		var row Decision
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			return nil, fmt.Errorf("read audit log: %w", err)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// platformEnv is the environment that gives the lab its own stand-in platform.
func (l *Lab) platformEnv() []string { return []string{"QEMU_SEV_PLATFORM=" + l.Path("platform")} }

// trustRoot gives the digest of the stand-in's root key.
func (l *Lab) trustRoot(ctx context.Context) (string, error) {
	out, err := l.qemuSEV(ctx, "--sev-trust-root")
	return strings.TrimSpace(out), err
}

// CA gives the file of the stand-in's ASK and ARK.
func (l *Lab) CA(ctx context.Context) (string, error) {
	out, err := l.qemuSEV(ctx, "--sev-ca-file")
	if err != nil {
		return "", err
	}
	return l.Path("ask_ark.cert"), os.WriteFile(l.Path("ask_ark.cert"), []byte(out), 0o644)
}

func (l *Lab) qemuSEV(ctx context.Context, arg string) (string, error) {
	out, err := l.run(ctx, l.platformEnv(), filepath.Join(l.Bin, "qemu-sev"), arg)
	if err == nil && out.Code != 0 {
		err = fmt.Errorf("qemu-sev %s: exit code %d\n%s", arg, out.Code, out.Stderr)
	}
	return out.Stdout, err
}
