package keyserver

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"time"
)

// schema holds the steps that make the tables, a folder for each kind of database with the same steps in both:
// 0001_name.sql, 0002_name.sql and so on. Each runs once, in order, in one transaction with its row in the table of
// migrations. A released step is never changed: a new one follows it.
//
//go:embed schema
var schema embed.FS

// readMigrations gives a database's steps in their order.
func readMigrations(name string) ([]string, error) {
	files, err := schema.ReadDir("schema/" + name)
	if err != nil {
		return nil, err
	}
	var steps []string
	for i, f := range files { // sorted by name
		if want := fmt.Sprintf("%04d_", i+1); len(f.Name()) < len(want) || f.Name()[:len(want)] != want {
			return nil, fmt.Errorf("migration %s is not number %d", f.Name(), i+1)
		}
		step, err := schema.ReadFile("schema/" + name + "/" + f.Name())
		if err != nil {
			return nil, err
		}
		steps = append(steps, string(step))
	}
	return steps, nil
}

// ErrNewer says that a newer program has changed the store's tables: what they mean now, this one cannot know.
var ErrNewer = errors.New("store is newer than this program")

func newerForm(have, known int) error {
	return fmt.Errorf("%w: its tables have form %d, this program knows %d: use a newer sealboot", ErrNewer, have, known)
}

// checkForm refuses tables that are newer than this program.
func (d *dialect) checkForm(ctx context.Context, on queries) error {
	steps, err := d.migrations()
	if err != nil {
		return err
	}
	var have int
	if err := on.row(ctx, `SELECT max(version) FROM migrations`).Scan(&have); err != nil {
		return err
	}
	if have > len(steps) {
		return newerForm(have, len(steps))
	}
	return nil
}

// migrate brings the tables to the newest form, and refuses a store that is newer than this program.
func (d *dialect) migrate(ctx context.Context, on queries, now time.Time) error {
	steps, err := d.migrations()
	if err != nil {
		return err
	}
	return d.take(ctx, on, steps, now)
}

// take runs those of the steps that the database has not had.
func (d *dialect) take(ctx context.Context, q queries, steps []string, now time.Time) error {
	if _, err := q.exec(ctx, `CREATE TABLE IF NOT EXISTS migrations (version `+d.integer+` PRIMARY KEY, applied `+d.integer+` NOT NULL)`+d.strict); err != nil {
		return err
	}
	var have int
	if err := q.row(ctx, `SELECT coalesce(max(version), 0) FROM migrations`).Scan(&have); err != nil {
		return err
	}
	if have > len(steps) {
		return newerForm(have, len(steps))
	}
	for version := have + 1; version <= len(steps); version++ {
		if _, err := q.exec(ctx, steps[version-1]); err != nil {
			return fmt.Errorf("migration %d: %w", version, err)
		}
		if _, err := q.exec(ctx, `INSERT INTO migrations VALUES (?, ?)`, version, now.Unix()); err != nil {
			return fmt.Errorf("migration %d: %w", version, err)
		}
	}
	return nil
}
