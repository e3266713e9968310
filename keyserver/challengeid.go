package keyserver

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp/seal"
)

// A challenge's id: random 16 | created u32 | expires u32, seconds since 1970, big-endian | MAC 16. Its random bytes name the session
// that its report makes.
const (
	challengeRandom = 16
	challengeFacts  = challengeRandom + 4 + 4
	challengeMAC    = 16
	challengeSize   = challengeFacts + challengeMAC
)

// challenges makes challenges and knows them again. Nothing is stored for one, so that asking for many costs the
// store nothing: the key follows from the store key and from a salt that no other store has.
type challenges struct{ key []byte }

const challengeSalt = 16

// challenges gives what makes a store's challenges. A store that has no salt yet gets one.
func (k *Key) challenges(ctx context.Context, on queries, random io.Reader) (challenges, error) {
	salt := make([]byte, challengeSalt)
	err := on.row(ctx, `SELECT salt FROM challenges`).Scan(&salt)
	if errors.Is(err, sql.ErrNoRows) {
		if _, err := io.ReadFull(random, salt); err != nil {
			return challenges{}, err
		}
		_, err = on.exec(ctx, `INSERT INTO challenges (salt, forgotten) VALUES (?, 0)`, salt)
	}
	if err != nil {
		return challenges{}, fmt.Errorf("ready challenges: %w", err)
	}
	key, err := hkdf.Key(sha256.New, k.challenge, salt, "sealboot key server store 1: challenges", keySize)
	return challenges{key}, err
}

// challenge is one that was made here, by this server or another one on the same store.
type challenge struct {
	id               string
	nonce            []byte
	image            string
	created, expires time.Time
}

// session names the session that the challenge's report makes.
func (c *challenge) session() string { return c.id[:2*challengeRandom] }

// make makes a challenge for an image. expires is in whole seconds.
func (c challenges) make(random io.Reader, image string, created, expires time.Time) (*challenge, error) {
	raw := make([]byte, challengeRandom, challengeSize)
	if _, err := io.ReadFull(random, raw); err != nil {
		return nil, err
	}
	raw = binary.BigEndian.AppendUint32(raw, uint32(created.Unix()))
	raw = binary.BigEndian.AppendUint32(raw, uint32(expires.Unix()))
	return c.read(append(raw, c.mac("id", raw, image)[:challengeMAC]...), image)
}

var errNoChallenge = errors.New("no such challenge")

// find knows a challenge again by its id.
func (c challenges) find(id, image string) (*challenge, error) {
	raw, err := hex.DecodeString(id)
	if err != nil {
		return nil, errNoChallenge
	}
	return c.read(raw, image)
}

func (c challenges) read(raw []byte, image string) (*challenge, error) {
	if len(raw) != challengeSize {
		return nil, errNoChallenge
	}
	facts, mac := raw[:challengeFacts], raw[challengeFacts:]
	if !hmac.Equal(mac, c.mac("id", facts, image)[:challengeMAC]) {
		return nil, errNoChallenge
	}
	seconds := func(at int) time.Time { return time.Unix(int64(binary.BigEndian.Uint32(facts[at:])), 0) }
	return &challenge{id: hex.EncodeToString(raw), nonce: c.mac("nonce", facts, image)[:seal.NonceSize], image: image,
		created: seconds(challengeRandom), expires: seconds(challengeRandom + 4)}, nil
}

func (c challenges) mac(use string, facts []byte, image string) []byte {
	h := hmac.New(sha256.New, c.key)
	h.Write(joined([][]byte{[]byte("sealboot challenge 1 " + use), facts, []byte(image)}))
	return h.Sum(nil)
}

// endChallenge keeps the session that a challenge's report has made and ended. If there is one already, that is errStale; and so
// it is where one may have been there and is forgotten.
func (t *transaction) endChallenge(s *session, how state) error {
	forgotten, err := t.forgotten()
	if err == nil && s.expires.Unix() <= forgotten {
		err = errStale
	}
	if err != nil {
		return err
	}
	n, err := t.exec(`INSERT INTO sessions (`+sessionColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL) ON CONFLICT (id) DO NOTHING`,
		s.id, string(s.kind), s.image, s.version, s.platform, s.chip, s.created.Unix(), s.expires.Unix(), string(how))
	if err == nil && n != 1 {
		err = errStale
	}
	return err
}

// forgotten is the end of the last challenge whose session may be forgotten.
func (t *transaction) forgotten() (int64, error) {
	if !t.batch.forgottenKnown {
		if err := t.row(`SELECT forgotten FROM challenges`).Scan(&t.batch.forgotten); err != nil {
			return 0, err
		}
		t.batch.forgottenKnown = true
	}
	return t.batch.forgotten, nil
}

// forget forgets sessions that a condition chooses, sweepLength at most. Those that challenges have made must be over: none
// of these challenges is taken any more, whatever becomes of the clock.
func (t *transaction) forget(which string, args ...any) (gone int64, err error) {
	var last sql.NullInt64
	which = `state <> 'open' AND ` + which
	args = append(args, sweepLength)
	chosen := `(SELECT seq FROM sessions WHERE ` + which + ` LIMIT ?)`
	if err := t.row(`SELECT max(expires) FROM sessions WHERE kind = 'snp' AND seq IN `+chosen, args...).Scan(&last); err != nil {
		return 0, err
	}
	forgotten, err := t.forgotten()
	if err != nil {
		return 0, err
	}
	if last.Valid && last.Int64 > forgotten {
		if _, err := t.exec(`UPDATE challenges SET forgotten = ?`, last.Int64); err != nil {
			return 0, err
		}
		t.batch.forgotten = last.Int64
	}
	return t.exec(`DELETE FROM sessions WHERE seq IN `+chosen, args...)
}

// lookChallenge says what the store knows of a challenge: errNoSession if its report is still to come.
func (s *Store) lookChallenge(ctx context.Context, c *challenge) (*session, error) {
	kept, err := readSession(ctx, s.read, c.session())
	if !errors.Is(err, errNoSession) {
		return kept, err
	}
	var forgotten int64
	if err := s.read.row(ctx, `SELECT forgotten FROM challenges`).Scan(&forgotten); err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, err
	}
	if c.expires.Unix() <= forgotten {
		return &session{id: c.session(), kind: kindSNP, image: c.image, created: c.created, expires: c.expires, state: expired}, nil
	}
	return nil, errNoSession
}

// reported are challenges that had their report here a short while ago: a hint that spares a verification. The store decides.
type reported struct {
	mu          sync.Mutex
	new, before map[string]bool // by session
}

// maxReported bounds each of the two.
const maxReported = 1 << 14

func (r *reported) has(c *challenge) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.new[c.session()] || r.before[c.session()]
}

func (r *reported) add(c *challenge) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.new == nil || len(r.new) >= maxReported {
		r.new, r.before = make(map[string]bool), r.new
	}
	r.new[c.session()] = true
}
