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
	"strings"
	"time"

	"github.com/sealboot/sealboot/keyserver/auditlog"
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

	EventAddPrincipal    Event = "add-principal" // with its credential's beginning, roles and end as reason
	EventRemovePrincipal Event = "remove-principal"
	EventAdmin           Event = "admin" // a request of an administrator that was refused
)

// Events lists them.
func Events() []Event {
	return []Event{EventRegister, EventSession, EventRelease, EventExpire, EventRevoke, EventUnrevoke, EventPolicy,
		EventPut, EventRotate, EventConfirm, EventRollBack, EventBackup, EventRestore, EventAddPrincipal, EventRemovePrincipal, EventAdmin}
}

// Entry is one decision. It holds no secret, and nothing that a host sent except in a checked form.
type Entry struct {
	Time          time.Time  `json:"time"`
	Event         Event      `json:"event"`
	Principal     string     `json:"principal,omitempty"` // who did it: an administrator, or a host where hosts must be known
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
	API           string     `json:"api,omitempty"`      // as the measurement's MAC or the report confirms it, or as claimed in a refusal
	TCB           string     `json:"tcb,omitempty"`      // as a report says it
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
	Hash string `json:"hash"`
}

// ChainError says where the audit's chain is broken: a row was changed, dropped, added or moved.
type ChainError = auditlog.ChainError

// ErrAuditHead says that the audit's end is not what this store's servers wrote: the database was written by somebody
// else, or an older state of it was put back under a running server. Nothing is written to such a store, and so nothing is released.
var ErrAuditHead = errors.New("end of the audit is not what the key server wrote: the database was changed from outside; look with sealboot keyserver audit verify")

// A checkpoint of the audit is signed with the batch after which this many rows, or this much time, have passed since the last one.
const (
	checkpointRows = 1000
	checkpointAge  = time.Hour
)

// head is the audit's end: the last row's place and hash, and which checkpoint was signed last. It is authenticated
// under the store key and checked before a batch extends it, so that somebody who can write the database but has no key cannot have
// the server go on from a rewritten chain. (Whoever can put back an old copy of the whole store also puts back its head:
// that is found by a checkpoint kept elsewhere.)
type head struct {
	auditlog.Head
	covered   int64 // rows that the last checkpoint covers
	coveredAt int64 // its time; 0: there is none
}

const (
	auditHead     = "audit-head" // name of the setting
	auditHeadSize = 8 + sha256.Size + 8 + 8 + sha256.Size
)

func (k *Key) encodeHead(h head) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(h.Size))
	b = append(b, h.Hash[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(h.covered))
	b = binary.BigEndian.AppendUint64(b, uint64(h.coveredAt))
	return append(b, k.headMAC(b)...)
}

func (k *Key) headMAC(b []byte) []byte {
	m := hmac.New(sha256.New, k.head)
	m.Write([]byte("sealboot audit head 1\n"))
	m.Write(b)
	return m.Sum(nil)
}

func (k *Key) decodeHead(b []byte) (head, error) {
	if len(b) != auditHeadSize {
		return head{}, ErrAuditHead
	}
	b, mac := b[:auditHeadSize-sha256.Size], b[auditHeadSize-sha256.Size:]
	if !hmac.Equal(mac, k.headMAC(b)) {
		return head{}, ErrAuditHead
	}
	number := func(at int) int64 { return int64(binary.BigEndian.Uint64(b[at:])) }
	return head{Head: auditlog.Head{Size: number(0), Hash: auditlog.Hash(b[8:])},
		covered: number(8 + sha256.Size), coveredAt: number(16 + sha256.Size)}, nil
}

func (k *Key) readHead(ctx context.Context, on queries) (head, error) {
	var value []byte
	err := on.row(ctx, `SELECT value FROM settings WHERE name = ?`, auditHead).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return head{}, ErrAuditHead
	}
	if err != nil {
		return head{}, fmt.Errorf("read head of the audit: %w", err)
	}
	return k.decodeHead(value)
}

func (k *Key) writeHead(ctx context.Context, on queries, h head) error {
	_, err := on.exec(ctx, `INSERT INTO settings (name, value) VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value`, auditHead, k.encodeHead(h))
	if err != nil {
		return fmt.Errorf("write head of the audit: %w", err)
	}
	return nil
}

// trail is the audit of one batch of writes: the head with the batch's rows, and their entries.
type trail struct {
	head
	entries []Entry
	signed  []signed // checkpoints that the batch makes
}

// beginTrail reads the head that a batch extends.
func (s *Store) beginTrail(ctx context.Context, on queries) (trail, error) {
	h, err := s.key.readHead(ctx, on)
	if err != nil {
		return trail{}, err
	}
	if seen := s.seen; h.Size < seen.Size || h.Size == seen.Size && !h.Hash.Equal(seen.Hash) {
		return trail{}, fmt.Errorf("%w: it has %d rows, this server has seen %d", ErrAuditHead, h.Size, seen.Size)
	}
	return trail{head: h}, nil
}

// audit appends an entry.
func (t *transaction) audit(e Entry) error {
	e.Time = e.Time.UTC().Truncate(time.Millisecond)
	e.Cause, e.Reason = bounded(e.Cause), bounded(e.Reason)
	text, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	next := t.trail.Next(text)
	if _, err := t.exec(`INSERT INTO audit (seq, event, class, entry, hash) VALUES (?, ?, ?, ?, ?)`,
		next.Size, string(e.Event), string(e.Class), string(text), next.Hash[:]); err != nil {
		return fmt.Errorf("write audit: %w", err)
	}
	t.trail.Head = next
	t.trail.entries = append(t.trail.entries, e)
	return nil
}

// maxText bounds cause and reason: a row must fit a line of an export.
const maxText = 4 << 10

func bounded(s string) string {
	if len(s) > maxText {
		return strings.ToValidUTF8(s[:maxText], "") + " (cut)"
	}
	return s
}

// endTrail writes the head of a batch with rows, and the checkpoint that is due. The batch commits after it.
func (s *Store) endTrail(ctx context.Context, on queries, t *trail) error {
	if len(t.entries) == 0 {
		return nil
	}
	if now := t.entries[len(t.entries)-1].Time; t.due(now) {
		if err := s.sign(ctx, on, t, now); err != nil {
			return err
		}
	}
	return s.key.writeHead(ctx, on, t.head)
}

// due says whether rows have waited for a checkpoint long enough. The first row gets one of its own.
func (h head) due(now time.Time) bool {
	rows := h.Size - h.covered
	return rows > 0 && (h.covered == 0 || rows >= checkpointRows || now.Unix()-h.coveredAt >= int64(checkpointAge/time.Second))
}

// sign makes a checkpoint of the rows so far and notes it in the head.
func (s *Store) sign(ctx context.Context, on queries, t *trail, now time.Time) error {
	c := auditlog.Checkpoint{Head: t.Head, Time: now.UTC().Truncate(time.Second)}
	note := s.key.signer.Sign(c)
	_, err := on.exec(ctx, `INSERT INTO checkpoints (seq, note) VALUES (?, ?) ON CONFLICT (seq) DO UPDATE SET note = excluded.note`, c.Size, string(note))
	if err != nil {
		return fmt.Errorf("write checkpoint: %w", err)
	}
	t.covered, t.coveredAt = c.Size, now.Unix()
	t.signed = append(t.signed, signed{c, note})
	return nil
}

// signed is a checkpoint with its note.
type signed struct {
	auditlog.Checkpoint
	note []byte
}

// AuditKey gives the public key under which the audit's checkpoints and exports are checked. It follows from the store key.
func (k *Key) AuditKey() auditlog.PublicKey { return k.signer.PublicKey() }
