package keyserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// TestLocations tells folders from connection strings.
func TestLocations(t *testing.T) {
	for location, want := range map[string]bool{
		"postgres://db.example/keys": true, "postgresql:///keys": true, "host=/run/postgresql dbname=keys": true, "service=keys": true, "host = db": true,
		"/var/lib/keys": false, "keys": false, "./host=db": false, "/srv/a=b": false, "postgres": false, "": false,
	} {
		if IsPostgres(location) != want {
			t.Errorf("%q: PostgreSQL is %v", location, !want)
		}
	}
}

// TestConnectionStrings starts from one that does and spoils one thing at a time. No error repeats the password.
func TestConnectionStrings(t *testing.T) {
	for _, name := range []string{"PGHOST", "PGSSLMODE", "PGSERVICE", "PGPASSWORD", "PGOPTIONS"} {
		t.Setenv(name, "")
	}
	root := filepath.Join(t.TempDir(), "root.crt")
	must(t, os.WriteFile(root, serverCertificate(t).certificate, 0o600))
	for _, good := range []string{
		"postgres://keys@db.example/keys?sslmode=verify-full&sslrootcert=" + root,
		"postgres://keys@db.example,db2.example/keys?sslmode=verify-ca&sslrootcert=" + root,
		"host=/run/postgresql user=keys dbname=keys passfile=/etc/keys.pass search_path=keys",
		"host=127.0.0.1 user=keys dbname=keys sslmode=disable",
		"host=::1 user=keys dbname=keys",
	} {
		if _, err := postgresConfig(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for name, bad := range map[string]string{
		"password in a URL":            "postgres://keys:hunter2@db.example/keys?sslmode=verify-full&sslrootcert=" + root,
		"password as a query":          "postgres://keys@db.example/keys?password=hunter2&sslmode=verify-full&sslrootcert=" + root,
		"password in words":            "host=/run/postgresql user=keys password=hunter2 dbname=keys",
		"password in a malformed URL":  "postgres://keys:hunter2@db.example:port/keys",
		"password in malformed words":  "host=/run/postgresql password='hunter2",
		"settings of the database":     "host=/run/postgresql options='-c fsync=off' dbname=keys",
		"setting of the database":      "host=/run/postgresql synchronous_commit=off dbname=keys",
		"network in the clear":         "postgres://keys@db.example/keys?sslmode=disable",
		"network, TLS if it likes":     "postgres://keys@db.example/keys?sslmode=prefer",
		"network, TLS without trust":   "postgres://keys@db.example/keys?sslmode=require",
		"network as the second choice": "host=/run/postgresql,db.example dbname=keys sslmode=require",
		"no mode of TLS":               "postgres://keys@db.example/keys",
		"no root certificate":          "postgres://keys@db.example/keys?sslmode=verify-full&sslrootcert=/nowhere",
	} {
		_, err := postgresConfig(bad)
		if !errors.Is(err, ErrConnection) {
			t.Errorf("%s: %v", name, err)
		} else if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error repeats the password: %v", name, err)
		}
	}
}

// TestPostgresDurability is a premise: every connection has the settings that durability and an end of every wait rest on,
// and a database without fsync is refused.
func TestPostgresDurability(t *testing.T) {
	postgresAlone(t)
	l := newLab(t)
	l.register("web")
	for name, want := range map[string]string{"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "lock_timeout": "5s",
		"statement_timeout": "10s", "idle_in_transaction_session_timeout": "10s", "client_min_messages": "warning"} {
		for _, on := range []queries{l.store.read, l.store.dialect.on(l.store.writes)} {
			var got string
			must(t, on.row(t.Context(), `SHOW `+name).Scan(&got))
			if got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	}
	cluster(t).Run(t, "psql", "-c", `ALTER ROLE postgres SET synchronous_commit = off`, "postgres")
	defer cluster(t).Run(t, "psql", "-c", `ALTER ROLE postgres RESET synchronous_commit`, "postgres")
	var got string
	must(t, l.query(`SHOW synchronous_commit`).Scan(&got))
	if got != "on" {
		t.Errorf("with a role that has it off, synchronous_commit is %q", got)
	}

	p := testtool.StartPostgres(t)
	defer p.Stop()
	location := p.Database(t, "keys")
	must(t, CreateStore(t.Context(), location, l.key, l.clock()))
	for setting, word := range map[string]string{"fsync=off": "fsync", "full_page_writes=off": "fsync"} {
		p.Kill()
		p.Start(t, setting)
		if s, err := OpenStore(t.Context(), location, l.key, rand.Reader, l.clock()); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", setting, err)
			if err == nil {
				s.Close()
			}
		}
	}
	p.Kill()
	p.Start(t)
	s, err := OpenStore(t.Context(), location, l.key, rand.Reader, l.clock())
	must(t, err)
	must(t, s.Close())
}

// TestPostgresOverTLS connects over loopback with a password from a file and the server's certificate checked.
func TestPostgresOverTLS(t *testing.T) {
	postgresAlone(t)
	t.Setenv("PGPASSFILE", "")
	p := testtool.StartPostgres(t)
	defer p.Stop()
	c := serverCertificate(t)
	certificate, key := p.WriteFile(t, "server.crt", c.certificate), p.WriteFile(t, "server.key", c.key)
	p.Kill()
	p.Start(t, "ssl=on", "ssl_cert_file="+certificate, "ssl_key_file="+key)
	p.Run(t, "psql", "-c", `CREATE ROLE keys LOGIN PASSWORD 'hunter2'`, "-c", `CREATE DATABASE keys OWNER keys`, "postgres")
	files := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(files, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	root, other := write("root", string(c.certificate)), write("other", string(serverCertificate(t).certificate))
	location := func(root, pass string) string {
		return fmt.Sprintf("host=127.0.0.1 port=%d user=keys dbname=keys sslmode=verify-full sslrootcert=%s passfile=%s", p.Port, root, pass)
	}
	good := location(root, write("pass", "*:*:keys:keys:hunter2\n"))
	k := testKey(t)
	must(t, CreateStore(t.Context(), good, k, time.Now()))
	s, err := OpenStore(t.Context(), good, k, rand.Reader, time.Now())
	must(t, err)
	must(t, s.Close())
	without := location(root, write("nothing", ""))
	s, err = OpenStore(t.Context(), without, k, rand.Reader, time.Now(), WithPassword(func() ([]byte, error) { return []byte("hunter2"), nil }))
	must(t, err)
	must(t, s.Close())
	if _, err := OpenStore(t.Context(), without, k, rand.Reader, time.Now(), WithPassword(func() ([]byte, error) { return nil, errAny })); !errors.Is(err, errAny) {
		t.Errorf("a password that does not read: %v", err)
	}
	for name, bad := range map[string]string{
		"another password": location(root, write("wrong", "*:*:keys:keys:hunter3\n")),
		"no password":      location(root, write("none", "")),
		"another root":     location(other, filepath.Join(files, "pass")),
	} {
		s, err := OpenStore(t.Context(), bad, k, rand.Reader, time.Now())
		if err == nil {
			s.Close()
		}
		if err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type pemPair struct{ certificate, key []byte }

func serverCertificate(t *testing.T) pemPair {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	return pemPair{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})}
}

// TestDatabaseComesBack kills the database under a server: nothing is released meanwhile, and afterwards once.
func TestDatabaseComesBack(t *testing.T) {
	postgresAlone(t)
	p := testtool.StartPostgres(t)
	defer p.Stop()
	l := newLabAt(t, p.Database(t, "keys"))
	defer l.stop()
	l.register("web")
	for range 3 {
		l.good("web")
		h := newLaunch(platforms()[0], "web")
		must(t, h.begin(t.Context(), l.client))
		h.measure(t)
		p.Kill()
		_, err := h.finish(t.Context(), l.client)
		refusedAs(t, err, wire.Busy)
		p.Start(t)
		packet, err := h.finish(t.Context(), l.client)
		for range connections { // each may be one that the crash has cut
			if err != nil {
				refusedAs(t, err, wire.Busy)
				packet, err = h.finish(t.Context(), l.client)
			}
		}
		must(t, err)
		h.unlocked(t, packet)
		_, err = h.finish(t.Context(), l.client)
		refusedAs(t, err, wire.Used)
	}
	l.rows()
}

// proxy stands between a store and its database, and may swallow the answer to a commit.
type proxy struct {
	location string
	swallow  atomic.Bool // cut the next connection that commits, after the commit went through
}

func newProxy(t *testing.T, location string) *proxy {
	dir, err := os.MkdirTemp("", "proxy")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", dir+"/.s.PGSQL.5432")
	must(t, err)
	t.Cleanup(func() { l.Close() })
	var behind, database string
	var port int
	_, err = fmt.Sscanf(location, "host=%s port=%d user=postgres dbname=%s", &behind, &port, &database)
	must(t, err)
	p := &proxy{location: fmt.Sprintf("host=%s port=5432 user=postgres dbname=%s", dir, database)}
	go func() {
		for {
			front, err := l.Accept()
			if err != nil {
				return
			}
			back, err := net.Dial("unix", fmt.Sprintf("%s/.s.PGSQL.%d", behind, port))
			if err != nil {
				front.Close()
				continue
			}
			var cut atomic.Bool
			go func() { // what the database says
				defer front.Close()
				b := make([]byte, 64<<10)
				for {
					n, err := back.Read(b)
					if err != nil || cut.Load() {
						return
					}
					front.Write(b[:n])
				}
			}()
			go func() {
				defer back.Close()
				b := make([]byte, 64<<10)
				for {
					n, err := front.Read(b)
					if err != nil {
						return
					}
					if bytes.Contains(b[:n], []byte("COMMIT\x00")) && p.swallow.CompareAndSwap(true, false) {
						cut.Store(true)
					}
					back.Write(b[:n])
				}
			}()
		}
	}()
	return p
}

// TestLostCommit loses the database's answer to the commit of a release: the release is in the database, but since nobody
// can tell, nothing comes out, then or later.
func TestLostCommit(t *testing.T) {
	postgresAlone(t)
	p := newProxy(t, newLocation(t))
	l := newLabAt(t, p.location)
	defer l.stop()
	l.register("web")
	l.good("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	p.swallow.Store(true)
	packet, err := h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Busy)
	if packet.Secret != nil {
		t.Error("a packet came out")
	}
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Used)
	released := 0
	for _, r := range l.rows() {
		if r.Session == h.session.ID && r.Event == EventRelease && r.Class == "" {
			released++
		}
	}
	if released != 1 {
		t.Errorf("audit knows of %d releases: the commit was not lost at the right time", released)
	}
	l.good("web")
}

// TestCommitOnOneDiskOnly commits where a standby should have taken part, which never answers: the database warns of it, and the
// release counts as failed.
func TestCommitOnOneDiskOnly(t *testing.T) {
	postgresAlone(t)
	p := testtool.StartPostgres(t)
	defer p.Stop()
	l := newLabAt(t, p.Database(t, "keys"))
	defer l.stop()
	l.register("web")
	l.good("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	p.Run(t, "psql", "-c", `ALTER SYSTEM SET synchronous_standby_names = 'standby'`, "-c", `SELECT pg_reload_conf()`, "postgres")
	done := make(chan error)
	go func() {
		_, err := h.finish(context.Background(), l.client)
		done <- err
	}()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if n := string(p.Run(t, "psql", "-At", "-c", `SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`, "postgres")); n != "0\n" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the commit does not wait for the standby")
		}
	}
	refusedAs(t, <-done, wire.Internal)
	p.Run(t, "psql", "-c", `ALTER SYSTEM RESET synchronous_standby_names`, "-c", `SELECT pg_reload_conf()`, "postgres")
	_, err := h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Used)
}

// TestHeldLock keeps the lock that writers take: a write is told that the store is busy, in a bounded time.
func TestHeldLock(t *testing.T) {
	postgresAlone(t)
	l := newLab(t)
	l.register("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	db, d, err := openDatabase(l.dir)
	must(t, err)
	defer db.Close()
	must(t, d.exclusive(t.Context(), db, func(queries) error {
		_, err := h.finish(t.Context(), l.client)
		refusedAs(t, err, wire.Busy)
		return nil
	}))
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
}

// TestDatabaseHangs holds the database still: requests end all the same, and after it nothing is lost or released twice.
func TestDatabaseHangs(t *testing.T) {
	postgresAlone(t)
	p := testtool.StartPostgres(t)
	defer p.Stop()
	l := newLabAt(t, p.Database(t, "keys"))
	l.stop()
	l.limits.write = 4 * time.Second
	l.start()
	defer l.stop()
	l.store.batchTime = 500 * time.Millisecond
	l.register("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	p.Pause()
	_, err := h.finish(t.Context(), l.client)
	p.Resume()
	refusedAs(t, err, wire.Busy)
	l.good("web")
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
	l.rows()
}

// incompressible gives text that a database cannot store in less room.
func incompressible(size int) string {
	var b strings.Builder
	for b.Len() < size {
		b.WriteString(rand.Text())
	}
	return b.String()[:size]
}

// TestStalledServer lets a server stop in the middle of a write, with the lock that all writers take: the database ends its
// transaction, the others go on, and the stalled one learns that its write has failed.
func TestStalledServer(t *testing.T) {
	postgresAlone(t)
	l := newLab(t)
	l.register("web")
	stalled, err := OpenStore(t.Context(), l.dir, l.key, rand.Reader, l.clock())
	must(t, err)
	defer stalled.Close()
	entry := Entry{Time: l.clock(), Event: EventExpire, Cause: "of the stalled server"}
	inside, proceed, failed := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		failed <- stalled.write(context.Background(), func(tx *transaction) error {
			err := tx.audit(entry)
			close(inside)
			<-proceed
			return err
		})
	}()
	<-inside
	for deadline := time.Now().Add(30 * time.Second); ; {
		err := l.store.write(t.Context(), func(tx *transaction) error {
			return tx.audit(Entry{Time: l.clock(), Event: EventExpire, Cause: "of another"})
		})
		if err == nil {
			break
		}
		if !errors.Is(err, ErrBusy) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	close(proceed)
	if err := <-failed; err == nil {
		t.Error("the stalled write counts as done")
	}
	for _, r := range l.rows() {
		if r.Cause == entry.Cause {
			t.Error("the stalled write is in the audit")
		}
	}
	must(t, stalled.write(t.Context(), func(tx *transaction) error { return tx.audit(entry) }))
}

// fillDisk writes rows of the audit, large and then small, until none fits.
func (l *lab) fillDisk(want string) {
	l.t.Helper()
	for size := 4000; size > 30; {
		err := l.store.write(l.t.Context(), func(tx *transaction) error {
			return tx.audit(Entry{Time: l.clock(), Event: EventExpire, Cause: incompressible(size)})
		})
		if err != nil && !strings.Contains(err.Error(), want) {
			l.t.Fatal(err)
		}
		if err != nil {
			size /= 2
		}
	}
}

// TestPostgresDiskFull gives the audit's table a disk of one megabyte and fills it while a release is under way: nothing comes
// out, the session stays open, and with room again it is released once.
func TestPostgresDiskFull(t *testing.T) {
	postgresAlone(t)
	p := testtool.StartPostgres(t)
	defer p.Stop()
	disk := filepath.Dir(p.WriteFile(t, "disk", nil)) + "/disk"
	must(t, os.Remove(disk))
	must(t, os.Mkdir(disk, 0o700))
	var owner unix.Stat_t
	must(t, unix.Stat(p.Dir, &owner))
	options := fmt.Sprintf("mode=0700,uid=%d,gid=%d,size=", owner.Uid, owner.Gid)
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, options+"1m"); err != nil {
		t.Skipf("no right to mount a small disk: %v", err)
	}
	defer unix.Unmount(disk, unix.MNT_DETACH)
	l := newLabAt(t, p.Database(t, "keys"))
	defer l.stop()
	p.Run(t, "psql", "-c", `CREATE TABLESPACE small LOCATION '`+disk+`'`, "postgres")
	p.Run(t, "psql", "-c", `ALTER TABLE audit SET TABLESPACE small`, "keys")
	l.register("web")
	l.good("web")
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	l.fillDisk("No space left")
	_, err := h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Internal)
	must(t, unix.Mount("tmpfs", disk, "tmpfs", unix.MS_REMOUNT, options+"8m"))
	packet, err := h.finish(t.Context(), l.client)
	must(t, err)
	h.unlocked(t, packet)
	l.rows()
}
