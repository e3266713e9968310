package keyserver

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/metrics"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// Defaults and bounds of a Config.
const (
	DefaultSessionTTL  = 5 * time.Minute
	DefaultMaxSessions = 4096
	DefaultRate        = 20
	DefaultImageRate   = 20
	minSessionTTL      = time.Second
	maxSessionTTL      = 24 * time.Hour
	maxMaxSessions     = 1 << 20
	maxRate            = 1_000_000
	burstSeconds       = 5 // of a rate may come at once
)

// Config says how a server works. All but SNP, Hosts and the last four must be given.
type Config struct {
	Store  *Store
	Roots  sev.RootSet // trusted to speak for platforms
	Random io.Reader   // safe for concurrent use; crypto/rand.Reader outside tests
	Now    func() time.Time
	Log    *slog.Logger
	SNP    *snp.Verifier         // trusts the same roots; nil: the way in at run time is not served
	Hosts  *access.Authenticator // of whom hosts must be one, with the role release; nil: anybody may ask

	SessionTTL  time.Duration // from the session to its measurement; 0: DefaultSessionTTL
	MaxSessions int           // open at once: the oldest give way; 0: DefaultMaxSessions
	Rate        int           // requests a second from one source, with bursts of five seconds' worth; 0: DefaultRate
	ImageRate   int           // sessions and challenges a second in the name of one image, likewise; 0: DefaultImageRate
}

// Server makes sessions and releases secrets. It is safe for concurrent use, and keeps nothing that a restart
// would lose: sessions are in the store.
type Server struct {
	store       *Store
	chains      *chains
	snp         *snp.Verifier
	hosts       *access.Authenticator
	random      io.Reader
	now         func() time.Time
	log         *slog.Logger
	ttl         time.Duration
	maxSessions int
	working     chan struct{}
	limits      limits
	sources     *access.Limiter[netip.Prefix]
	images      *access.Limiter[string]
	decoy       *found // what is judged where there is no image
	reported    reported
	metrics     *metrics.Metrics // nil: nobody counts
	admin       http.Handler     // nil: nobody administers over the network
}

// crowd is the number of requests at work from which on writes wait for each other.
const crowd = 16

// NewServer makes a server. Without a root to trust it would refuse everybody, which is an error here.
func NewServer(c Config) (*Server, error) {
	if c.SessionTTL == 0 {
		c.SessionTTL = DefaultSessionTTL
	}
	if c.MaxSessions == 0 {
		c.MaxSessions = DefaultMaxSessions
	}
	if c.Rate == 0 {
		c.Rate = DefaultRate
	}
	if c.ImageRate == 0 {
		c.ImageRate = DefaultImageRate
	}
	switch {
	case c.Store == nil || c.Random == nil || c.Now == nil || c.Log == nil:
		return nil, errors.New("key server needs a store, randomness, a clock and a log")
	case len(c.Roots) == 0:
		return nil, errors.New("key server trusts no root")
	case c.SessionTTL < minSessionTTL || c.SessionTTL > maxSessionTTL:
		return nil, fmt.Errorf("sessions of %v: not between %v and %v", c.SessionTTL, minSessionTTL, maxSessionTTL)
	case c.MaxSessions < 1 || c.MaxSessions > maxMaxSessions:
		return nil, fmt.Errorf("%d open sessions: not between 1 and %d", c.MaxSessions, maxMaxSessions)
	case c.Rate < 1 || c.Rate > maxRate:
		return nil, fmt.Errorf("%d requests a second: not between 1 and %d", c.Rate, maxRate)
	case c.ImageRate < 1 || c.ImageRate > maxRate:
		return nil, fmt.Errorf("%d requests a second for an image: not between 1 and %d", c.ImageRate, maxRate)
	}
	if _, err := c.Store.key.readHead(context.Background(), c.Store.read); err != nil {
		return nil, fmt.Errorf("make key server: %w", err)
	}
	decoy, err := newDecoy(c.Store.key, c.Random)
	if err != nil {
		return nil, fmt.Errorf("make key server: %w", err)
	}
	c.Store.Observe(Observer{Signed: func(p auditlog.Checkpoint, note []byte) {
		c.Log.Info("audit signed", "rows", p.Size, "hash", p.Hash, "note", string(note)) // logs go elsewhere: so does the checkpoint
	}})
	s := &Server{decoy: decoy, store: c.Store, chains: newChains(c.Roots), snp: c.SNP, hosts: c.Hosts, random: c.Random, now: c.Now, log: c.Log,
		ttl: c.SessionTTL, maxSessions: c.MaxSessions, working: make(chan struct{}, maxWorking), limits: defaultLimits,
		sources: access.NewLimiter[netip.Prefix](float64(c.Rate), burstSeconds*c.Rate), images: access.NewLimiter[string](float64(c.ImageRate), burstSeconds*c.ImageRate)}
	crowded := func() bool { return len(s.working) >= crowd }
	c.Store.crowded.Store(&crowded)
	return s, nil
}

// Source says who asks, for log and audit.
type Source struct {
	Request string // id of the request
	Address string
}

// Administer answers what is asked below /v1/admin/ by the handler, which finds out itself who asks (package keyserver/admin).
// It is called before Serve.
func (s *Server) Administer(admin http.Handler) { s.admin = admin }

// OpenSession makes a launch session for a platform whose certificates lead to a trusted root. A *Refusal says
// why not. An unknown or revoked image gets a session too, one that will be refused with its measurement: a
// host cannot ask which images there are.
func (s *Server) OpenSession(ctx context.Context, from Source, r wire.SessionRequest) (wire.Session, error) {
	now := s.now()
	if !s.images.Allow(r.Image, now) {
		return wire.Session{}, refusef(wire.TooManyRequests, "image %s is asked for too often", r.Image)
	}
	entry := Entry{Time: now, Event: EventSession, Request: from.Request, Source: from.Address, Image: r.Image}.by(ctx)
	p, refusal := s.chains.verify(r)
	if refusal != nil {
		entry.refuse(refusal)
		if err := s.store.write(ctx, func(t *transaction) error { return t.audit(entry) }); err != nil {
			return wire.Session{}, err
		}
		return wire.Session{}, refusal
	}
	f, err := s.store.find(ctx, r.Image)
	if err != nil {
		return wire.Session{}, fmt.Errorf("make session: %w", err)
	}
	guest, version, cause := s.admit(f, Attempt{Time: now, Address: from.Address, Platform: p.name, Chip: p.chip})
	if f.image != nil {
		entry.Version, entry.PolicyVersion = f.image.version, f.image.policyVersion
	}
	entry.Cause = cause
	keys, start, err := sev.NewSession(p.pdh, guest, s.random)
	if err != nil {
		return wire.Session{}, fmt.Errorf("make session: %w", err)
	}
	defer keys.Wipe()
	kept, err := s.keep(r.Image, version, p, now, keys)
	if err != nil {
		return wire.Session{}, fmt.Errorf("make session: %w", err)
	}
	entry.Session, entry.Platform, entry.Chip, entry.Policy, entry.Kind = kept.id, p.name, p.chip, guest.String(), string(modeOf(guest))
	if err := s.store.write(ctx, func(t *transaction) error { return s.insert(t, kept, entry) }); err != nil {
		return wire.Session{}, fmt.Errorf("make session: %w", err)
	}
	return wire.Session{ID: kept.id, Policy: uint32(guest), DHCert: start.GODH[:], Blob: start.Session[:], Expires: kept.expires.UTC()}, nil
}

// insert puts a session into the store, and makes room for it if there is none.
func (s *Server) insert(t *transaction, kept *session, entry Entry) error {
	gone, err := t.makeRoom(s.maxSessions, entry.Time)
	if err != nil {
		return err
	}
	if gone > 0 {
		if err := t.audit(Entry{Time: entry.Time, Event: EventExpire, Count: gone, Cause: "made room for new sessions"}); err != nil {
			return err
		}
	}
	if err := t.insertSession(kept); err != nil {
		return err
	}
	return t.audit(entry)
}

// admit says under which guest policy a session is made, and of which version of the image it is: 0 if it is doomed from the
// start, because there is no such image, or because its policy or a revocation says no already now. The host is not told: it gets a
// session like any other, and its measurement is refused. One that may not ask sees the default policy, as for no image.
func (s *Server) admit(f *found, a Attempt) (guest sev.Policy, version int64, cause string) {
	about := f
	if f.image == nil || f.image.policy.SEV == nil {
		about = s.decoy
	}
	standing, secrets, err := about.open(s.store.key)
	if err == nil {
		secrets.wipe()
	}
	no := Judge(standing, a).Complaints // without evidence: the circumstances
	guest = about.image.policy.SEV.Session()
	switch {
	case f.image == nil:
		return guest, 0, "image is not registered: its measurement will be refused"
	case f.image.policy.SEV == nil:
		return guest, 0, fmt.Sprintf("%v (SEV): its measurement will be refused", ErrNoWay)
	case err != nil:
		return guest, 0, fmt.Sprintf("%v: its measurement will be refused", err)
	case len(no) == 0:
		return guest, f.image.version, ""
	case !errors.Is(complaints(no), ErrRevoked):
		guest = s.decoy.image.policy.SEV.Session()
	}
	return guest, 0, fmt.Sprintf("%v: its measurement will be refused", complaints(no))
}

// keep makes the session's row, with its keys sealed.
func (s *Server) keep(image string, version int64, p *platform, now time.Time, keys *sev.Session) (*session, error) {
	id := make([]byte, 16)
	if _, err := io.ReadFull(s.random, id); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	k := &session{id: hex.EncodeToString(id), kind: kindSEV, image: image, version: version, platform: p.name, chip: p.chip,
		created: now, expires: now.Add(s.ttl).Truncate(time.Second), state: open}
	plain := keys.Encode()
	defer clear(plain)
	var err error
	k.sealed, err = s.store.key.seal(s.random, plain, k.purpose()...)
	return k, err
}

// Expire ends the sessions whose time is over, and drops their keys.
func (s *Server) Expire(ctx context.Context) error {
	for more := true; more; {
		now := s.now()
		err := s.store.write(ctx, func(t *transaction) (err error) {
			var ended int64
			if ended, more, err = t.expireSessions(now); err != nil || ended == 0 {
				return err
			}
			return t.audit(Entry{Time: now, Event: EventExpire, Count: ended, Cause: "no measurement came in time"})
		})
		if err != nil {
			return err
		}
	}
	return nil
}
