package keyserver

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
)

var postgresDialect = &dialect{
	name:       "postgres",
	integer:    "BIGINT",
	blob:       "BYTEA",
	begin:      `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_advisory_xact_lock(` + storeLock + `)`,
	next:       []string{`RELEASE SAVEPOINT one; SAVEPOINT one`}, // one way there and back
	long:       `SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0`,
	snapshot:   sql.LevelRepeatableRead,
	numbered:   true,
	tables:     `SELECT tablename FROM pg_tables WHERE schemaname = current_schema() ORDER BY tablename COLLATE "C"`,
	settle:     settleIdentities,
	columns:    `SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(?) AND attnum > 0 AND NOT attisdropped ORDER BY attnum`,
	migrations: sync.OnceValues(func() ([]string, error) { return readMigrations("postgres") }),
	busy:       postgresBusy,
	broken:     postgresBroken,
	bound: func(conn *sql.Conn, limit time.Duration) error {
		return conn.Raw(func(driverConn any) error {
			return driverConn.(*stdlib.Conn).Conn().PgConn().Conn().SetDeadline(time.Now().Add(limit))
		})
	},
	warned: postgresWarned,
}

// storeLock is the number of the advisory lock under which servers write to a database: "sealboot" in ASCII.
const storeLock = "8315159405145321332"

// ErrConnection says that a connection string does not do. The string is not repeated.
var ErrConnection = errors.New("connection string of the store")

// IsPostgres tells a connection string, postgres://... or words like host=..., from a folder. (A folder whose name has
// a = in it can be written ./name.)
func IsPostgres(location string) bool { return connectionString.MatchString(location) }

var connectionString = regexp.MustCompile(`^(postgres(ql)?://|[a-z_]+ *=)`)

// connectionKeys are what a connection string may have: no password, which would show in lists of processes and in
// configurations, and no setting of the database that durability could rest on.
var connectionKeys = []string{"host", "port", "dbname", "user", "passfile", "service", "servicefile", "sslmode", "sslrootcert", "sslcert", "sslkey",
	"sslsni", "sslnegotiation", "channel_binding", "require_auth", "target_session_attrs", "connect_timeout", "application_name", "search_path", "krbsrvname", "krbspn"}

// openPostgres opens a database by its connection string. As with libpq, what the string does not say comes from the
// environment (PGHOST, PGPASSFILE, PGSERVICEFILE and so on) and their files.
func openPostgres(location string, o options) (*sql.DB, error) {
	config, err := postgresConfig(location)
	if err != nil {
		return nil, err
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(settle), stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
		if o.password == nil {
			return nil
		}
		password, err := o.password()
		c.Password = string(password)
		clear(password)
		return err
	}))
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	db.SetConnMaxIdleTime(5 * time.Minute)
	return db, nil
}

func postgresConfig(location string) (*pgx.ConnConfig, error) {
	if u, err := url.Parse(location); strings.Contains(location, "://") {
		if err != nil {
			return nil, fmt.Errorf("%w: not a URL", ErrConnection)
		}
		if _, has := u.User.Password(); has {
			return nil, fmt.Errorf("%w has a password: put it into a file, and passfile=FILE or PGPASSFILE", ErrConnection)
		}
	}
	options := pgx.ParseConfigOptions{}
	options.ConnStringAllowedKeys = connectionKeys
	config, err := pgx.ParseConfigWithOptions(location, options)
	if err != nil {
		if file := (*fs.PathError)(nil); errors.As(err, &file) {
			return nil, fmt.Errorf("%w: %w", ErrConnection, file)
		}
		return nil, fmt.Errorf("%w does not read: it may have %s (a password belongs into passfile)", ErrConnection, strings.Join(connectionKeys, ", "))
	}
	if err := checkTransport(&config.Config); err != nil {
		return nil, err
	}
	if config.ConnectTimeout == 0 {
		config.ConnectTimeout = 5 * time.Second
	}
	dialer := &net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3}}
	config.DialFunc = dialer.DialContext
	if config.ValidateConnect == nil { // target_session_attrs
		config.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	config.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) { conn.CustomData()[warning] = n.Code + " " + n.Message }
	return config, nil
}

// checkTransport refuses to speak in the clear, or to anybody, over a network: who can answer for the database can
// bring back ended sessions.
func checkTransport(c *pgconn.Config) error {
	for _, way := range append([]*pgconn.FallbackConfig{{Host: c.Host, Port: c.Port, TLSConfig: c.TLSConfig}}, c.Fallbacks...) {
		network, _ := pgconn.NetworkAddress(way.Host, way.Port)
		ip, err := netip.ParseAddr(way.Host)
		if network == "unix" || way.Host == "localhost" || err == nil && ip.IsLoopback() {
			continue
		}
		if way.TLSConfig == nil || way.TLSConfig.InsecureSkipVerify && way.TLSConfig.VerifyPeerCertificate == nil && way.TLSConfig.VerifyConnection == nil {
			return fmt.Errorf("%w: %s is not this machine: give sslmode=verify-full and sslrootcert", ErrConnection, way.Host)
		}
	}
	return nil
}

// Limits of the database's patience, in milliseconds. A server that hangs in a batch, or whose machine is gone, holds the
// others up no longer than patience.
const (
	patience     = "10000"
	lockPatience = "5000"
)

// settle prepares a new connection, and refuses a database that does not keep what it commits.
func settle(ctx context.Context, conn *pgx.Conn) error {
	var version int
	var fsync, pages, encoding, durable string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('fsync'), current_setting('full_page_writes'),
		current_setting('server_encoding'), current_setting('synchronous_commit')`).Scan(&version, &fsync, &pages, &encoding, &durable)
	switch {
	case err != nil:
		return err
	case version < 13_00_00:
		return fmt.Errorf("database is PostgreSQL %d: 13 or newer is needed", version/10000)
	case fsync != "on" || pages != "on":
		return errors.New("database may lose what it has committed: its fsync and full_page_writes must be on")
	case encoding != "UTF8":
		return fmt.Errorf("database has encoding %s: it must be UTF8", encoding)
	}
	if durable != "remote_apply" { // which is more than on
		durable = "on"
	}
	_, err = conn.Exec(ctx, `SET synchronous_commit = `+durable+`; SET client_min_messages = warning;
		SET statement_timeout = `+patience+`; SET lock_timeout = `+lockPatience+`; SET idle_in_transaction_session_timeout = `+patience+`;
		SET tcp_keepalives_idle = 10; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 3; SET tcp_user_timeout = `+patience)
	clear(conn.PgConn().CustomData()) // a warning that came with the connection
	return err
}

// postgresBusy knows the SQLSTATEs after which the same may succeed later, and connections that could not be made or broke.
func postgresBusy(err error) bool {
	if failed := (*pgconn.PgError)(nil); errors.As(err, &failed) {
		switch failed.Code[:2] {
		case "08", "40", "57": // connection, serialization and deadlock, timeout or shutdown
			return true
		}
		return failed.Code == "53300" || failed.Code == "55P03" || failed.Code == "25P03" // connections, lock, idle in transaction
	}
	connect := (*pgconn.ConnectError)(nil)
	network := net.Error(nil)
	return errors.As(err, &connect) || errors.As(err, &network) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn)
}

// postgresBroken tells what the database answered from what became of the connection to it.
func postgresBroken(err error) bool {
	if failed := (*pgconn.PgError)(nil); errors.As(err, &failed) {
		return failed.Code[:2] == "08" || failed.Code[:3] == "57P" // shutdown, ended by the administrator
	}
	return true
}

// warning is the name under which a connection keeps the last warning.
const warning = "sealboot: warning"

// postgresWarned gives the warning that came with a success. A commit has one, and counts as failed, if it is not on
// every standby that it should be on: should one of them take over, the commit never was.
func postgresWarned(driverConn any) error {
	data := driverConn.(*stdlib.Conn).Conn().PgConn().CustomData()
	if what, ok := data[warning]; ok {
		delete(data, warning)
		return fmt.Errorf("database warns: %v", what)
	}
	return nil
}
