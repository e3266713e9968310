package keyserver

import (
	"errors"
	"testing"
)

// TestAuditChain changes, drops, swaps, adds and cuts off rows: each is found, at the right row.
func TestAuditChain(t *testing.T) {
	for _, attack := range []struct {
		name, statement string
		seq             int64
	}{
		{"changed", `UPDATE audit SET entry = replace(entry, 'web', 'wob') WHERE seq = 2`, 2},
		{"dropped", `DELETE FROM audit WHERE seq = 2`, 2},
		{"first dropped", `DELETE FROM audit WHERE seq = 1`, 1},
		{"last dropped", `DELETE FROM audit WHERE seq = 5`, 5},
		{"all dropped", `DELETE FROM audit`, 1},
		{"swapped", `UPDATE audit SET seq = -seq WHERE seq IN (2, 3); UPDATE audit SET seq = 5 + seq WHERE seq < 0`, 2},
		{"added", `INSERT INTO audit SELECT 6, entry, mac FROM audit WHERE seq = 5`, 6},
		{"renumbered", `DELETE FROM audit WHERE seq = 2; UPDATE audit SET seq = seq - 1 WHERE seq > 2`, 2},
	} {
		t.Run(attack.name, func(t *testing.T) {
			l := newLab(t)
			l.register("web")
			l.good("web")
			l.good("web")
			if n := len(l.rows()); n != 5 {
				t.Fatalf("%d rows", n)
			}
			_, err := l.store.db.Exec(attack.statement)
			must(t, err)
			err = l.store.Audit(t.Context(), func(Row) error { return nil })
			chain := (*ChainError)(nil)
			if !errors.As(err, &chain) || chain.Seq != attack.seq {
				t.Errorf("got %v, want row %d", err, attack.seq)
			}
		})
	}
}

// TestAuditOfTwoHistories puts a row of another course of things, sound in itself, in the place of one.
func TestAuditOfTwoHistories(t *testing.T) {
	l := newLab(t)
	l.register("web")
	fork := copyStore(t, l.dir)
	l.good("web")
	l.stop()
	home := l.dir
	l.dir = fork
	l.start()
	l.good("web")
	theirs := l.rows()[1]
	var entry string
	must(t, l.store.db.QueryRow(`SELECT entry FROM audit WHERE seq = 2`).Scan(&entry))
	l.stop()
	l.dir = home
	l.start()
	_, err := l.store.read.exec(t.Context(), `UPDATE audit SET entry = ?, mac = ? WHERE seq = 2`, entry, theirs.MAC)
	must(t, err)
	err = l.store.Audit(t.Context(), func(Row) error { return nil })
	chain := (*ChainError)(nil)
	if !errors.As(err, &chain) || chain.Seq != 3 {
		t.Errorf("got %v, want row 3: the one behind it was written after another", err)
	}
}
