package keyserver

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/sealboot/sealboot/keyserver/auditlog"
)

// beginAudit gives a new store its head: from then on there is never a store without one.
func beginAudit(ctx context.Context, on queries, key *Key) error {
	return errors.Join(key.writeHead(ctx, on, head{}), dropRows1(ctx, on))
}

// takeAudit chains the rows of a store anew that are chained in the first form: the entries stay as they are. A head that does not hold
// is not looked at here: the owner must be able to open the store and look at what is there. Writing checks it.
func takeAudit(ctx context.Context, on queries, key *Key) error {
	var value []byte
	err := on.row(ctx, `SELECT value FROM settings WHERE name = ?`, auditHead).Scan(&value)
	switch {
	case errors.Is(err, sql.ErrNoRows) || err == nil && len(value) != 8+sha256.Size:
		return nil
	case err != nil:
		return fmt.Errorf("read head of the audit: %w", err)
	}
	entries, err := key.readRows1(ctx, on, value)
	if err != nil {
		return fmt.Errorf("take over the audit: %w", err)
	}
	var h auditlog.Head
	for _, entry := range entries {
		var e Entry
		if err := json.Unmarshal([]byte(entry), &e); err != nil {
			return fmt.Errorf("take over the audit: %w", &ChainError{Seq: h.Size + 1, Problem: "row does not read"})
		}
		h = h.Next([]byte(entry))
		if _, err := on.exec(ctx, `INSERT INTO audit (seq, event, class, entry, hash) VALUES (?, ?, ?, ?, ?)`,
			h.Size, string(e.Event), string(e.Class), entry, h.Hash[:]); err != nil {
			return fmt.Errorf("take over the audit: %w", err)
		}
	}
	return errors.Join(key.writeHead(ctx, on, head{Head: h}), dropRows1(ctx, on))
}

// readRows1 reads the rows of the audit's first form: chained by HMAC-SHA256 under the store key, up to a head that is a number of rows
// and the last one's MAC.
func (k *Key) readRows1(ctx context.Context, on queries, end []byte) ([]string, error) {
	rows, err := on.rows(ctx, `SELECT seq, entry, mac FROM audit_1 ORDER BY seq`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var entries []string
	var before []byte
	for rows.Next() {
		var seq int64
		var entry string
		var mac []byte
		if err := rows.Scan(&seq, &entry, &mac); err != nil {
			return nil, err
		}
		m := hmac.New(sha256.New, k.rows1)
		m.Write(joined([][]byte{before, number(seq), []byte(entry)}))
		if seq != int64(len(entries)+1) || !hmac.Equal(mac, m.Sum(nil)) {
			return nil, &ChainError{Seq: int64(len(entries) + 1), Problem: "row or the one before it was changed or is missing"}
		}
		entries, before = append(entries, entry), mac
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if !hmac.Equal(end, append(binary.BigEndian.AppendUint64(nil, uint64(len(entries))), before...)) {
		return nil, &ChainError{Seq: int64(len(entries) + 1), Problem: "rows are missing at the end"}
	}
	return entries, nil
}

func dropRows1(ctx context.Context, on queries) error {
	_, err := on.exec(ctx, `DROP TABLE IF EXISTS audit_1`)
	return err
}
