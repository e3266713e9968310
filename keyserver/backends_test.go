package keyserver

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// Every test that uses a store runs twice: on SQLite, and by TestOnPostgres, which starts this program again, on PostgreSQL.
// SEALBOOT_TEST_STORE=postgres go test -run NAME runs one of them there.
const storeKind = "SEALBOOT_TEST_STORE"

func onPostgres() bool { return os.Getenv(storeKind) == "postgres" }

// TestOnPostgres runs all of this program's tests on PostgreSQL.
func TestOnPostgres(t *testing.T) {
	if onPostgres() {
		t.Skip("this is it")
	}
	testtool.PostgresPrograms(t)
	cmd := exec.Command(os.Args[0], "-test.v", "-test.timeout=10m")
	cmd.Env = append(os.Environ(), storeKind+"=postgres")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	passed := regexp.MustCompile(`(?m)^--- PASS: (\w+)`).FindAllSubmatch(out, -1)
	names := make(map[string]bool)
	for _, p := range passed {
		names[string(p[1])] = true
	}
	for _, want := range []string{"TestOneReleaseForMany", "TestKilled", "TestChangedRows", "TestServersOnOneStore", "TestPostgresDurability", "TestPostgresDiskFull", "TestLostCommit", "TestHundredThousandSessions", "TestBackup"} {
		if !names[want] {
			t.Errorf("%s has not passed", want)
		}
	}
	t.Logf("%d tests passed on PostgreSQL", len(names))
}

// sqliteAlone and postgresAlone skip where a test says nothing.
func sqliteAlone(t testing.TB, why string) {
	t.Helper()
	if onPostgres() {
		t.Skip("for SQLite: " + why)
	}
}

func postgresAlone(t testing.TB) {
	t.Helper()
	if !onPostgres() {
		t.Skip("for PostgreSQL: TestOnPostgres runs it")
	}
}

// The PostgreSQL server of all tests, started with the first that asks.
var (
	clusterMu sync.Mutex
	theServer *testtool.Postgres
	databases atomic.Int64
)

func cluster(t testing.TB) *testtool.Postgres {
	t.Helper()
	clusterMu.Lock()
	defer clusterMu.Unlock()
	if theServer == nil {
		theServer = testtool.StartPostgres(t)
	}
	return theServer
}

func stopCluster() error {
	if theServer == nil {
		return nil
	}
	return theServer.Stop()
}

// newLocation gives a place for a store, where there is none yet.
func newLocation(t testing.TB) string {
	t.Helper()
	if !onPostgres() {
		return filepath.Join(t.TempDir(), "store")
	}
	return cluster(t).Database(t, fmt.Sprintf("store%d", databases.Add(1)))
}

// copyDatabase gives a copy of a database, as of one moment.
func copyDatabase(t testing.TB, location string) string {
	t.Helper()
	_, name, _ := strings.Cut(location, "dbname=")
	to := newLocation(t)
	_, copied, _ := strings.Cut(to, "dbname=")
	dump := filepath.Join(cluster(t).Dir, copied+".dump")
	cluster(t).Run(t, "pg_dump", "--format=custom", "--file="+dump, name)
	cluster(t).Run(t, "pg_restore", "--exit-on-error", "--dbname="+copied, dump)
	must(t, os.Remove(dump))
	return to
}
