package snp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// DefaultKDS is AMD's key service (publication 57230).
const DefaultKDS = "https://kdsintf.amd.com"

// Defaults and bounds of a KDS.
const (
	DefaultInterval = 10 * time.Second // AMD answers oftener asked with 429
	DefaultWait     = 3 * time.Second
	DefaultTimeout  = 15 * time.Second
	DefaultKnown    = 4096

	burst       = 3 // a new machine needs a VCEK and a list
	maxPending  = 8
	maxWaiting  = 32 // calls that wait at once; more are told to come again
	maxAnswer   = 64 << 10
	firstPause  = 10 * time.Second
	longestWait = 10 * time.Minute
	maxRetry    = time.Hour      // the most that the service's Retry-After can ask for
	noneFor     = time.Hour      // how long "there is no such certificate" is remembered
	listFor     = 12 * time.Hour // after that a list is fetched anew; the old one is used meanwhile
	issuersFor  = 24 * time.Hour * 30
)

// KDSConfig says how to reach AMD's key service. Only HTTP and Now must be given.
type KDSConfig struct {
	URL      string       // "": DefaultKDS
	HTTP     *http.Client // decides on TLS and proxies; redirects are not followed
	Now      func() time.Time
	Keep     Keeper        // where answers survive a restart; nil: nowhere
	Interval time.Duration // between requests, beyond a burst of three; 0: DefaultInterval
	Wait     time.Duration // how long one call waits for an answer, which goes on without it; 0: DefaultWait
	Timeout  time.Duration // of one request; 0: DefaultTimeout
	Known    int           // answers that are remembered; 0: DefaultKnown

	// Told is called for each question to the service, with how it went and how long the service is left alone from now on; nil: nobody
	// is told. It must not block.
	Told func(o Outcome, alone time.Duration)
}

// Outcome is how a question to AMD's key service went.
type Outcome string

// The outcomes.
const (
	Answered    Outcome = "answered"     // if only that there is no such certificate
	RateLimited Outcome = "rate-limited" // it wants to be left alone (status 429)
	Failed      Outcome = "failed"       // no answer, or a wrong one
	Withheld    Outcome = "withheld"     // not asked: it is being left alone
)

// Keeper holds answers across restarts. Whoever can change what it holds can make a verification fail, and no more: answers are
// checked like what a guest sends.
type Keeper interface {
	Load(name string) (data []byte, fetched time.Time, err error) // an error: not there
	Save(name string, data []byte, fetched time.Time) error
}

// KDS is a cache in front of AMD's key service, and a Source. It asks one thing at a time, at most one in ten seconds beyond a short burst,
// and equal questions once. When the service is overloaded or fails, nothing is asked for a while, twice as long each time. Answers that
// are not what was asked for count as failures and are not kept. All of it is bounded: questions that wait, answers that are kept, their size, time.
//
// Anybody who can get a challenge can make it ask for certificates of chips that do not exist. That delays others' first certificates,
// no more; guests that bring theirs, and bundles, need nothing from here.
type KDS struct {
	c       KDSConfig
	base    string
	http    *http.Client
	limiter *rate.Limiter
	ctx     context.Context
	cancel  context.CancelFunc
	queue   chan *question
	waiting chan struct{}
	done    chan struct{}

	mu       sync.Mutex
	known    map[string]*answer
	order    []string // oldest first
	pending  map[string]*question
	failures int
	pause    time.Time
	trouble  error // the last failure
}

// answer is what is known about a path. data is nil where there is nothing to be had until the time none.
type answer struct {
	data    []byte
	fetched time.Time
	none    time.Time
}

// question is one that is being asked.
type question struct {
	path  string
	check func([]byte) error
	done  chan struct{}
	data  []byte
	err   error
}

// NewKDS makes a cache. Close ends it.
func NewKDS(c KDSConfig) (*KDS, error) {
	if c.URL == "" {
		c.URL = DefaultKDS
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("AMD's key service: %q is not of the form https://HOST", clip(c.URL))
	}
	if c.HTTP == nil || c.Now == nil {
		return nil, errors.New("AMD's key service: an HTTP client and a clock are needed")
	}
	for _, d := range []struct {
		to       *time.Duration
		fallback time.Duration
	}{{&c.Interval, DefaultInterval}, {&c.Wait, DefaultWait}, {&c.Timeout, DefaultTimeout}} {
		if *d.to == 0 {
			*d.to = d.fallback
		}
		if *d.to < 0 {
			return nil, fmt.Errorf("AMD's key service: a time of %v", *d.to)
		}
	}
	if c.Known == 0 {
		c.Known = DefaultKnown
	}
	own := *c.HTTP
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	k := &KDS{c: c, base: strings.TrimSuffix(u.String(), "/"), http: &own, limiter: rate.NewLimiter(rate.Every(c.Interval), burst),
		queue: make(chan *question, maxPending), waiting: make(chan struct{}, maxWaiting), done: make(chan struct{}), known: map[string]*answer{}, pending: map[string]*question{}}
	k.ctx, k.cancel = context.WithCancel(context.Background())
	go k.work()
	return k, nil
}

// Close ends what is being asked, and waits for that.
func (k *KDS) Close() {
	k.cancel()
	<-k.done
}

// VCEK gives a chip's certificate for a TCB.
func (k *KDS) VCEK(ctx context.Context, p Product, chip ChipID, t TCB) ([]byte, error) {
	path, err := vcekPath(p, chip, t)
	if err != nil {
		return nil, err
	}
	return k.get(ctx, path, 0, func(der []byte) error {
		c, err := parseCertificate(der)
		if err != nil {
			return err
		}
		e, err := parseEndorsement(c, VCEK)
		if err != nil {
			return err
		}
		if e.chip != chip || e.tcb != t {
			return fmt.Errorf("%w: asked for chip %v and TCB %v", ErrMismatch, chip, t)
		}
		return nil
	})
}

// vcekPath asks for a VCEK (publication 57230, "Get VCEK"): Turin's chips are named by 8 bytes, and have an FMC level.
func vcekPath(p Product, chip ChipID, t TCB) (string, error) {
	if _, ok := p.layout(); !ok {
		return "", fmt.Errorf("%w: %q", ErrProduct, clip(string(p)))
	}
	id, fmc := chip.String(), ""
	if p == Turin {
		id, fmc = id[:16], fmt.Sprintf("fmcSPL=%d&", t.FMC)
	}
	return fmt.Sprintf("/vcek/v1/%s/%s?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d", p, id, fmc, t.Bootloader, t.TEE, t.SNP, t.Microcode), nil
}

// Issuers gives the ASK or ASVK and the ARK of a product.
func (k *KDS) Issuers(ctx context.Context, p Product, s Signer) ([]byte, error) {
	if _, ok := p.layout(); !ok || s != VCEK && s != VLEK {
		return nil, fmt.Errorf("%w: %q", ErrProduct, clip(string(p)))
	}
	return k.get(ctx, fmt.Sprintf("/%s/v1/%s/cert_chain", s, p), issuersFor, func(text []byte) error {
		g, err := parseLoose(text)
		if err == nil && len(g.issuers) != 2 {
			err = errors.New("not an issuer and a root")
		}
		return err
	})
}

// Revocations gives the list of a product.
func (k *KDS) Revocations(ctx context.Context, p Product) ([]byte, error) {
	if _, ok := p.layout(); !ok {
		return nil, fmt.Errorf("%w: %q", ErrProduct, clip(string(p)))
	}
	return k.get(ctx, fmt.Sprintf("/vcek/v1/%s/crl", p), listFor, func(der []byte) error {
		_, err := parseList(der)
		return err
	})
}

// get answers from what is known, or asks and waits a while. What is older than fresh is given all the same, and asked for anew; 0: never.
func (k *KDS) get(ctx context.Context, path string, fresh time.Duration, check func([]byte) error) ([]byte, error) {
	k.mu.Lock()
	now := k.c.Now()
	a := k.recall(path, check)
	if a != nil && a.data == nil && now.Before(a.none) {
		k.mu.Unlock()
		return nil, fmt.Errorf("%w: AMD's key service has none", ErrNoCertificate)
	}
	have := a != nil && a.data != nil
	if have && (fresh == 0 || now.Sub(a.fetched) < fresh) {
		k.mu.Unlock()
		return a.data, nil
	}
	q, err := k.ask(path, check, now)
	k.mu.Unlock()
	if have {
		return a.data, nil
	}
	if err != nil {
		return nil, err
	}
	busy := fmt.Errorf("%w: AMD's key service is being asked", ErrUnavailable)
	select {
	case k.waiting <- struct{}{}:
		defer func() { <-k.waiting }()
	default:
		return nil, busy
	}
	timer := time.NewTimer(k.c.Wait)
	defer timer.Stop()
	select {
	case <-q.done:
		return q.data, q.err
	case <-timer.C:
	case <-ctx.Done():
	case <-k.ctx.Done():
	}
	return nil, busy
}

// recall looks into memory and into what was kept. The lock is held.
func (k *KDS) recall(path string, check func([]byte) error) *answer {
	if a := k.known[path]; a != nil || k.c.Keep == nil {
		return a
	}
	data, fetched, err := k.c.Keep.Load(path)
	if err != nil || len(data) > maxAnswer || check(data) != nil || fetched.After(k.c.Now().Add(clockSlack)) {
		return nil
	}
	return k.remember(path, &answer{data: data, fetched: fetched})
}

// remember drops the oldest answer where there are too many. The lock is held.
func (k *KDS) remember(path string, a *answer) *answer {
	if k.known[path] == nil {
		if len(k.order) >= k.c.Known {
			delete(k.known, k.order[0])
			k.order = append(k.order[:0], k.order[1:]...)
		}
		k.order = append(k.order, path)
	}
	k.known[path] = a
	return a
}

// ask joins the question to those that wait, once. The lock is held.
func (k *KDS) ask(path string, check func([]byte) error, now time.Time) (*question, error) {
	if q := k.pending[path]; q != nil {
		return q, nil
	}
	if now.Before(k.pause) {
		k.tell(Withheld, k.pause.Sub(now))
		return nil, fmt.Errorf("%w: AMD's key service is left alone until %s: %w", ErrUnavailable, k.pause.UTC().Format(time.RFC3339), k.trouble)
	}
	q := &question{path: path, check: check, done: make(chan struct{})}
	select {
	case k.queue <- q:
		k.pending[path] = q
		return q, nil
	default:
		return nil, fmt.Errorf("%w: %d questions to AMD's key service wait already", ErrUnavailable, maxPending)
	}
}

// work asks one thing after the other.
func (k *KDS) work() {
	defer close(k.done)
	for {
		select {
		case <-k.ctx.Done():
			return
		case q := <-k.queue:
			k.answer(q)
		}
	}
}

func (k *KDS) answer(q *question) {
	k.mu.Lock()
	now, pause, trouble := k.c.Now(), k.pause, k.trouble
	k.mu.Unlock()
	var data []byte
	var f fault
	if now.Before(pause) {
		f = fault{err: trouble}
	} else if err := k.limiter.Wait(k.ctx); err != nil {
		f = fault{err: err}
	} else {
		data, f = k.fetch(q)
		k.note(q.path, data, f)
	}
	if f.err == nil && k.c.Keep != nil && data != nil {
		k.c.Keep.Save(q.path, data, k.c.Now()) // or it is asked for again after a restart
	}
	switch {
	case f.err != nil:
		q.err = fmt.Errorf("%w: AMD's key service: %w", ErrUnavailable, f.err)
	case data == nil:
		q.err = fmt.Errorf("%w: AMD's key service has none", ErrNoCertificate)
	default:
		q.data = data
	}
	k.mu.Lock()
	delete(k.pending, q.path)
	k.mu.Unlock()
	close(q.done)
}
