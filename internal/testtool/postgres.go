package testtool

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// Postgres is a PostgreSQL server of a test's own, in a folder of its own, with fsync on. It listens on a Unix socket,
// where it trusts everybody (the folder is closed to others), and with TLS on loopback, where it asks for passwords. It ends with
// the test's process, however that ends.
type Postgres struct {
	Dir  string // data/ is its data, log what it says
	Port int

	bin      string
	identity *syscall.SysProcAttr // whom it runs as
	process  *os.Process
	ended    chan struct{}
}

// StartPostgres makes a server and starts it. The caller stops it.
func StartPostgres(t testing.TB) *Postgres {
	t.Helper()
	bin := PostgresPrograms(t)
	dir, err := os.MkdirTemp("", "sealboot-postgres-")
	if err != nil {
		t.Fatal(err)
	}
	p := &Postgres{Dir: dir, bin: bin, identity: &syscall.SysProcAttr{}}
	if err := p.make(); err != nil {
		os.RemoveAll(dir)
		t.Fatalf("make PostgreSQL server: %v", err)
	}
	p.Start(t)
	return p
}

// PostgresPrograms gives the folder of the newest PostgreSQL's programs.
func PostgresPrograms(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		Missing(t, "PostgreSQL")
		return ""
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		return n
	}
	return slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
}

func (p *Postgres) make() error {
	if os.Geteuid() == 0 { // initdb refuses root
		if err := p.setUser("postgres", "nobody"); err != nil {
			return err
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	p.Port = free.Addr().(*net.TCPAddr).Port
	free.Close()
	if _, err := p.run("initdb", "-D", p.Dir+"/data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"); err != nil {
		return err
	}
	return os.WriteFile(p.Dir+"/data/pg_hba.conf", []byte("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n"), 0o600)
}

func (p *Postgres) setUser(names ...string) error {
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.Atoi(u.Uid)
		if err != nil {
			return err
		}
		gid, err := strconv.Atoi(u.Gid)
		if err != nil {
			return err
		}
		p.identity.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		return os.Chown(p.Dir, uid, gid)
	}
	return fmt.Errorf("none of the users %q is there", names)
}

// run runs one of PostgreSQL's programs to its end.
func (p *Postgres) run(program string, args ...string) ([]byte, error) {
	cmd := exec.Command(filepath.Join(p.bin, program), args...)
	cmd.Dir, cmd.SysProcAttr = p.Dir, &syscall.SysProcAttr{Credential: p.identity.Credential}
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8", "PGHOST=" + p.Dir, "PGPORT=" + strconv.Itoa(p.Port), "PGUSER=postgres"}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w\n%s", program, args, err, errs.String())
	}
	return out, nil
}

// Run runs one of PostgreSQL's programs (psql, pg_dump) against the server and gives its standard output.
func (p *Postgres) Run(t testing.TB, program string, args ...string) []byte {
	t.Helper()
	out, err := p.run(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Start starts the server after Kill, with further settings (name=value), and waits until it answers.
func (p *Postgres) Start(t testing.TB, settings ...string) {
	t.Helper()
	args := []string{"-D", p.Dir + "/data"}
	for _, s := range append([]string{
		"fsync=on", "listen_addresses=127.0.0.1", "port=" + strconv.Itoa(p.Port), "unix_socket_directories=" + p.Dir,
		"max_connections=200", "shared_buffers=64MB",
	}, settings...) {
		args = append(args, "-c", s)
	}
	log, err := os.OpenFile(p.Dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(p.bin, "postgres"), args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = p.Dir, log, log
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LC_ALL=C.UTF-8"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: p.identity.Credential, Pdeathsig: syscall.SIGQUIT}
	started := make(chan error)
	p.ended = make(chan struct{})
	go func() {
		runtime.LockOSThread() // Pdeathsig is the death of the thread
		defer close(p.ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start PostgreSQL server: %v", err)
	}
	p.process = cmd.Process
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := p.run("pg_isready", "-q"); err == nil {
			return
		}
		select {
		case <-p.ended:
		default:
			if time.Now().Before(deadline) {
				continue
			}
		}
		said, _ := os.ReadFile(p.Dir + "/log")
		t.Fatalf("PostgreSQL server does not answer:\n%s", said[max(0, len(said)-2000):])
	}
}

// Kill ends the server as a crash would: nobody gets to write what was not written.
func (p *Postgres) Kill() {
	p.Pause() // so that it starts no more processes
	children := p.signal(syscall.SIGKILL)
	<-p.ended
	for _, child := range children {
		for running(child) {
			time.Sleep(time.Millisecond)
		}
	}
}

// running says whether a process is there and not yet dead.
func running(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

// Pause holds all processes of the server, and Resume lets them go on.
func (p *Postgres) Pause() { p.signal(syscall.SIGSTOP) }

// Resume ends a Pause.
func (p *Postgres) Resume() { p.signal(syscall.SIGCONT) }

// signal reaches the server's first process and then those that it has started, one for each connection.
func (p *Postgres) signal(s syscall.Signal) (children []int) {
	pid := p.process.Pid
	list, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	p.process.Signal(s)
	for _, child := range bytes.Fields(list) {
		if n, err := strconv.Atoi(string(child)); err == nil {
			syscall.Kill(n, s)
			children = append(children, n)
		}
	}
	return children
}

// Stop ends the server and removes its folder.
func (p *Postgres) Stop() error {
	p.process.Signal(syscall.SIGINT) // disconnects everybody
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.Kill()
		return errors.Join(errors.New("PostgreSQL server did not stop"), os.RemoveAll(p.Dir))
	}
	return os.RemoveAll(p.Dir)
}

// Database makes a database and gives the connection string of its socket.
func (p *Postgres) Database(t testing.TB, name string) string {
	t.Helper()
	p.Run(t, "createdb", name)
	return fmt.Sprintf("host=%s port=%d user=postgres dbname=%s", p.Dir, p.Port, name)
}

// WriteFile writes a file that the server may read and others may not, named from the server's folder.
func (p *Postgres) WriteFile(t testing.TB, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(p.Dir, name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if c := p.identity.Credential; c != nil {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return path
}
