package keyserver

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// Event is what an audit entry tells of.
type Event string

// The events.
const (
	EventRegister Event = "register" // an image, or a new version of one
	EventSession  Event = "session"  // a request for a session, made or refused
	EventRelease  Event = "release"  // a measurement, with the secret released or refused
	EventExpire   Event = "expire"   // open sessions ended without a measurement
	EventRevoke   Event = "revoke"   // an image, a digest, a chip or a secret
	EventUnrevoke Event = "unrevoke" // any of these
	EventPolicy   Event = "policy"   // a new policy of an image
	EventPut      Event = "put-secret"
	EventRotate   Event = "rotate-secret"
	EventConfirm  Event = "confirm-secret" // a rotation ended: the guest has used the new version, or the owner says so
	EventRollBack Event = "roll-back-secret"
	EventBackup   Event = "backup"  // of the whole store
	EventRestore  Event = "restore" // this store was made from a backup
)

// Entry is one decision. It holds no secret, and nothing that a host sent except in a checked form.
type Entry struct {
	Time          time.Time  `json:"time"`
	Event         Event      `json:"event"`
	Principal     string     `json:"principal,omitempty"` // who did it: for administrators' acts
	Image         string     `json:"image,omitempty"`
	Version       int64      `json:"image_version,omitempty"`
	PolicyVersion int64      `json:"policy_version,omitempty"`
	PolicyDigest  string     `json:"policy_digest,omitempty"` // SHA-256 of a new policy's document
	Target        string     `json:"target,omitempty"`        // of an administrator's act, where it is not the image
	SecretVersion int64      `json:"secret_version,omitempty"`
	Session       string     `json:"session,omitempty"`
	Request       string     `json:"request,omitempty"`
	Source        string     `json:"source,omitempty"`
	Kind          string     `json:"kind,omitempty"`     // mode of the guest: sev, seves, snp
	Platform      string     `json:"platform,omitempty"` // product and the PDH's digest
	Chip          string     `json:"chip,omitempty"`     // digest of the CEK's key, or CHIP_ID
	Policy        string     `json:"policy,omitempty"`   // guest policy of the session
	API           string     `json:"api,omitempty"`      // as the measurement's MAC confirms it, or as claimed in a refusal
	Digest        string     `json:"digest,omitempty"`   // launch digest that the measurement fits
	Class         wire.Class `json:"class,omitempty"`    // empty: granted
	Cause         string     `json:"cause,omitempty"`    // why it was refused
	Reason        string     `json:"reason,omitempty"`   // what the owner should look at: what is likely behind the cause
	Count         int64      `json:"count,omitempty"`
}

// refuse notes a refusal.
func (e *Entry) refuse(r *Refusal) { e.Class, e.Cause, e.Reason = r.Class, r.Cause.Error(), r.Reason }

// Row is an entry in its place in the chain.
type Row struct {
	Seq int64 `json:"seq"`
	Entry
	MAC []byte `json:"mac"`
}

// ChainError says where the audit's chain is broken: a row was changed, dropped, added or moved.
type ChainError struct {
	Seq     int64
	Problem string
}

func (e *ChainError) Error() string { return fmt.Sprintf("audit row %d: %s", e.Seq, e.Problem) }

// The audit's head: the number of rows and the last one's MAC, so that rows cut off the end are missed too. (Whoever
// can put back an old copy of the whole store can also put back its head: see PROTOCOL.md.)
const auditHead = "audit-head"

// rowMAC chains a row to the one before it. Only the holder of the store key can make one.
func (k *Key) rowMAC(before []byte, seq int64, entry []byte) []byte {
	h := hmac.New(sha256.New, k.audit)
	h.Write(joined([][]byte{before, number(seq), entry}))
	return h.Sum(nil)
}

// audit appends an entry.
func (t *transaction) audit(e Entry) error {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	seq := t.head.seq + 1
	mac := t.store.key.rowMAC(t.head.mac, seq, text)
	if _, err := t.exec(`INSERT INTO audit (seq, entry, mac) VALUES (?, ?, ?)`, seq, string(text), mac); err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	*t.head = head{seq, mac} // written once, before the batch's commit
	return nil
}

// head is the last row's number and MAC; 0 and nothing before the first.
type head struct {
	seq int64
	mac []byte
}

func readHead(ctx context.Context, on queries) (head, error) {
	var value []byte
	err := on.row(ctx, `SELECT value FROM settings WHERE name = ?`, auditHead).Scan(&value)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return head{}, nil
	case err != nil:
		return head{}, fmt.Errorf("read head of the audit: %w", err)
	case len(value) != 8+sha256.Size:
		return head{}, errors.New("head of the audit is broken")
	}
	return head{int64(binary.BigEndian.Uint64(value)), value[8:]}, nil
}

func writeHead(ctx context.Context, on queries, h head) error {
	value := append(binary.BigEndian.AppendUint64(nil, uint64(h.seq)), h.mac...)
	_, err := on.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, auditHead, value)
	if err != nil {
		return fmt.Errorf("write head of the audit: %w", err)
	}
	return nil
}

// Audit walks the rows from the first to the last, checking the chain as it goes. A *ChainError tells of the first
// break; the rows given before it are sound.
func (s *Store) Audit(ctx context.Context, each func(Row) error) error {
	on, end, err := s.snapshot(ctx) // one view of rows and head
	if err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	defer end()
	last, err := readHead(ctx, on)
	if err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	rows, err := on.rows(ctx, `SELECT seq, entry, mac FROM audit ORDER BY seq`)
	if err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	defer rows.Close()
	var at head // of the rows so far
	for rows.Next() {
		var row Row
		var entry string
		if err := rows.Scan(&row.Seq, &entry, &row.MAC); err != nil {
			return fmt.Errorf("read audit: %w", err)
		}
		if row.Seq != at.seq+1 {
			return &ChainError{Seq: at.seq + 1, Problem: "row is missing"}
		}
		if !hmac.Equal(row.MAC, s.key.rowMAC(at.mac, row.Seq, []byte(entry))) {
			return &ChainError{Seq: row.Seq, Problem: "row or the one before it was changed"}
		}
		d := json.NewDecoder(bytes.NewReader([]byte(entry)))
		if err := d.Decode(&row.Entry); err != nil {
			return &ChainError{Seq: row.Seq, Problem: "row does not read"}
		}
		if err := each(row); err != nil {
			return err
		}
		at = head{row.Seq, row.MAC}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read audit: %w", err)
	}
	if at.seq != last.seq || !hmac.Equal(at.mac, last.mac) {
		return &ChainError{Seq: at.seq + 1, Problem: fmt.Sprintf("rows are missing at the end: %d there, %d written", at.seq, last.seq)}
	}
	return nil
}
