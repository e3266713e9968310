package snp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/kds"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
)

// service plays AMD's key service, for every product's fake AMD.
type service struct {
	*httptest.Server

	mu     sync.Mutex
	asked  []string
	spoil  func(w http.ResponseWriter, r *http.Request) bool // may answer instead
	answer map[string][]byte
}

func newService(t testing.TB) *service {
	s := &service{answer: map[string][]byte{}}
	for p, a := range amds() {
		id, fmc := a.Chip.String(), ""
		if p == snp.Turin {
			id, fmc = id[:16], fmt.Sprintf("fmcSPL=%d&", a.TCB.FMC)
		}
		s.answer[fmt.Sprintf("/vcek/v1/%s/%s?%sblSPL=%d&teeSPL=%d&snpSPL=%d&ucodeSPL=%d", p, id, fmc, a.TCB.Bootloader, a.TCB.TEE, a.TCB.SNP, a.TCB.Microcode)] = a.VCEK().Raw
		s.answer[fmt.Sprintf("/vcek/v1/%s/cert_chain", p)] = fake.PEM(a.ASK(), a.ARK())
		s.answer[fmt.Sprintf("/vlek/v1/%s/cert_chain", p)] = fake.PEM(a.ASVK(), a.ARK())
		s.answer[fmt.Sprintf("/vcek/v1/%s/crl", p)] = a.List(now.Add(-time.Hour), now.AddDate(0, 1, 0))
	}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.asked = append(s.asked, r.URL.RequestURI())
		spoil, body := s.spoil, s.answer[r.URL.RequestURI()]
		s.mu.Unlock()
		switch {
		case spoil != nil && spoil(w, r):
		case body == nil:
			http.NotFound(w, r)
		default:
			w.Write(body)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *service) set(spoil func(http.ResponseWriter, *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.spoil = spoil
}

// count gives how often it was asked since the last count.
func (s *service) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.asked)
	s.asked = nil
	return n
}

// clock is a time that tests move.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// newKDS makes a cache that may ask as often as it likes and waits as long as it takes, unless change says otherwise.
func newKDS(t testing.TB, s *service, change func(*snp.KDSConfig)) (*snp.KDS, *clock) {
	t.Helper()
	at := &clock{now: now}
	c := snp.KDSConfig{URL: s.URL, HTTP: s.Client(), Now: at.Now, Interval: time.Nanosecond, Wait: time.Minute}
	if change != nil {
		change(&c)
	}
	k, err := snp.NewKDS(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k, at
}

// TestKDS: a report without any certificate is taken, for every product, with what the service has; and again without asking.
func TestKDS(t *testing.T) {
	s := newService(t)
	for name, a := range amds() {
		k, _ := newKDS(t, s, nil)
		v := verifier(t, a.Roots(), k)
		p := policy()
		p.Revocation = snp.DefaultPolicy().Revocation
		for i, asked := range []int{3, 0} { // VCEK, issuers, list
			at, err := v.Verify(t.Context(), snp.Evidence{Report: a.Sign(good(a, 5))}, now)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if err := at.Judge(p, goodData, now).Err(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if n := s.count(); n != asked {
				t.Errorf("%s: asked %d times the %d. time", name, n, i+1)
			}
		}
		if name != snp.Turin { // whose address the library does not make
			if _, err := k.VCEK(t.Context(), name, a.Chip, a.TCB); err != nil {
				t.Error(err)
			}
			want := strings.TrimPrefix(kds.VCEKCertURL(string(name), a.Chip[:], kds.TCBVersion(fake.TCBVersion(name, a.TCB))), snp.DefaultKDS)
			if s.answer[want] == nil {
				t.Errorf("the library asks for %s", want)
			}
		}
	}
	// Without certificates, a VLEK and an older report have nobody to ask.
	a := amds()[snp.Milan]
	k, _ := newKDS(t, s, nil)
	v := verifier(t, a.Roots(), k)
	old, vlek := good(a, 2), good(a, 3)
	vlek.SignerInfo = fake.VLEK
	for _, raw := range [][]byte{a.Sign(old), a.Sign(vlek)} {
		if _, err := v.Verify(t.Context(), snp.Evidence{Report: raw}, now); !errors.Is(err, snp.ErrNoCertificate) || errors.Is(err, snp.ErrUnavailable) {
			t.Error(err)
		}
	}
	if n := s.count(); n != 0 {
		t.Errorf("asked %d times", n)
	}
}

// TestKDSFailures: whatever the service does wrong is an error that says "later", is not kept, and makes it be left alone.
func TestKDSFailures(t *testing.T) {
	a, other := amds()[snp.Milan], fake.New(snp.Milan)
	other.Chip[0]++
	other.Certify(nil)
	for name, spoil := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"429":               func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(429); return true },
		"503":               func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(503); return true },
		"redirect":          func(w http.ResponseWriter, r *http.Request) bool { http.Redirect(w, r, "/elsewhere", 302); return true },
		"garbage":           func(w http.ResponseWriter, r *http.Request) bool { w.Write([]byte("<html>")); return true },
		"empty":             func(w http.ResponseWriter, r *http.Request) bool { return true },
		"another chip's":    func(w http.ResponseWriter, r *http.Request) bool { w.Write(other.VCEK().Raw); return true },
		"the issuer":        func(w http.ResponseWriter, r *http.Request) bool { w.Write(a.ASK().Raw); return true },
		"huge":              func(w http.ResponseWriter, r *http.Request) bool { w.Write(make([]byte, 1<<20)); return true },
		"without end":       func(w http.ResponseWriter, r *http.Request) bool { return endless(w, r) },
		"slow":              func(w http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true },
		"connection broken": func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) },
	} {
		s := newService(t)
		k, at := newKDS(t, s, func(c *snp.KDSConfig) {
			if name == "slow" {
				c.Timeout = 50 * time.Millisecond
			}
		})
		s.set(spoil)
		// Twice as long each time, and never more than one request for it.
		for _, pause := range []time.Duration{10 * time.Second, 20 * time.Second, 40 * time.Second} {
			if der, err := k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB); !errors.Is(err, snp.ErrUnavailable) || der != nil {
				t.Errorf("%s: %v", name, err)
			}
			at.move(pause - time.Second)
			if _, err := k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB); !errors.Is(err, snp.ErrUnavailable) {
				t.Errorf("%s: %v", name, err)
			}
			if n := s.count(); n != 1 {
				t.Errorf("%s: asked %d times within %v", name, n, pause)
			}
			at.move(time.Second)
		}
		s.set(nil)
		if der, err := k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB); err != nil || !bytes.Equal(der, a.VCEK().Raw) {
			t.Errorf("%s, mended: %v", name, err)
		}
	}
}

func endless(w http.ResponseWriter, r *http.Request) bool {
	for r.Context().Err() == nil {
		if _, err := w.Write(make([]byte, 4096)); err != nil {
			break
		}
	}
	return true
}

// TestKDSRetryAfter: the service may ask for more patience than ours.
func TestKDSRetryAfter(t *testing.T) {
	s := newService(t)
	k, at := newKDS(t, s, nil)
	a := amds()[snp.Milan]
	s.set(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Retry-After", "300")
		w.WriteHeader(429)
		return true
	})
	k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB)
	s.set(nil)
	at.move(299 * time.Second)
	if _, err := k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB); !errors.Is(err, snp.ErrUnavailable) {
		t.Error(err)
	}
	at.move(time.Second)
	if _, err := k.VCEK(t.Context(), snp.Milan, a.Chip, a.TCB); err != nil {
		t.Error(err)
	}
}

// TestKDSTold: somebody who counts is told how each question went.
func TestKDSTold(t *testing.T) {
	s := newService(t)
	var mu sync.Mutex
	var told []string
	k, at := newKDS(t, s, func(c *snp.KDSConfig) {
		c.Told = func(o snp.Outcome, alone time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, fmt.Sprint(o, " ", alone))
		}
	})
	ask := func(p snp.Product) { k.Issuers(t.Context(), p, snp.VCEK) }
	ask(snp.Milan)
	ask(snp.Milan) // known
	s.set(func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "30")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	ask(snp.Genoa)
	at.move(10 * time.Second)
	ask(snp.Genoa)
	at.move(20 * time.Second)
	s.set(func(w http.ResponseWriter, _ *http.Request) bool { w.Write([]byte("nonsense")); return true })
	ask(snp.Genoa)
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"answered 0s", "rate-limited 30s", "withheld 20s", "failed 20s"}; !slices.Equal(told, want) {
		t.Errorf("told %q, want %q", told, want)
	}
}

// TestKDSNone: what AMD does not have is asked for once an hour, and is no failure.
func TestKDSNone(t *testing.T) {
	s := newService(t)
	k, at := newKDS(t, s, nil)
	for range 3 {
		if _, err := k.VCEK(t.Context(), snp.Milan, snp.ChipID{1}, snp.TCB{}); !errors.Is(err, snp.ErrNoCertificate) || errors.Is(err, snp.ErrUnavailable) {
			t.Error(err)
		}
	}
	if n := s.count(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	at.move(time.Hour)
	k.VCEK(t.Context(), snp.Milan, snp.ChipID{1}, snp.TCB{})
	if n := s.count(); n != 1 {
		t.Errorf("asked %d times after an hour", n)
	}
	if _, err := k.Revocations(t.Context(), snp.Milan); err != nil {
		t.Error(err)
	}
	if _, err := k.VCEK(t.Context(), "Rome/../..", snp.ChipID{1}, snp.TCB{}); !errors.Is(err, snp.ErrProduct) {
		t.Error(err)
	}
}

// TestKDSOnce: equal questions at once are one request, and so are those that come while it is under way.
func TestKDSOnce(t *testing.T) {
	s := newService(t)
	k, _ := newKDS(t, s, nil)
	a := amds()[snp.Milan]
	begun, goOn := make(chan struct{}, 10), make(chan struct{})
	s.set(func(http.ResponseWriter, *http.Request) bool { begun <- struct{}{}; <-goOn; return false })
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := k.VCEK(context.Background(), snp.Milan, a.Chip, a.TCB); err != nil {
				t.Error(err)
			}
		})
	}
	<-begun
	// Who does not wait is told to come again, and the answer comes all the same.
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := k.VCEK(gone, snp.Milan, a.Chip, a.TCB); !errors.Is(err, snp.ErrUnavailable) {
		t.Error(err)
	}
	close(goOn)
	wg.Wait()
	if n := s.count(); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

// TestKDSSlowly: beyond a burst of three, one question an interval; those that would wait are bounded.
func TestKDSSlowly(t *testing.T) {
	s := newService(t)
	k, _ := newKDS(t, s, func(c *snp.KDSConfig) { c.Interval, c.Wait = time.Hour, 20*time.Millisecond })
	for i := range 3 {
		for { // the answer may take longer than the wait
			_, err := k.VCEK(t.Context(), snp.Milan, snp.ChipID{byte(i + 1)}, snp.TCB{})
			if errors.Is(err, snp.ErrNoCertificate) {
				break
			}
			if !errors.Is(err, snp.ErrUnavailable) {
				t.Fatal(err)
			}
		}
	}
	full := false
	for i := range 20 {
		_, err := k.VCEK(t.Context(), snp.Milan, snp.ChipID{byte(i + 10)}, snp.TCB{})
		if !errors.Is(err, snp.ErrUnavailable) {
			t.Errorf("question %d: %v", i, err)
		}
		full = full || strings.Contains(err.Error(), "wait already")
	}
	if n := s.count(); n != 3 || !full {
		t.Errorf("asked %d times; full: %v", n, full)
	}
}

// TestKDSLists: an old list is used while a new one is asked for, and while there is none to be had; the policy judges its age.
func TestKDSLists(t *testing.T) {
	s := newService(t)
	k, at := newKDS(t, s, nil)
	first, err := k.Revocations(t.Context(), snp.Milan)
	if err != nil {
		t.Fatal(err)
	}
	at.move(11 * time.Hour)
	if _, err := k.Revocations(t.Context(), snp.Milan); err != nil || s.count() != 1 {
		t.Error("a fresh list was asked for again", err)
	}
	at.move(2 * time.Hour)
	s.set(func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true })
	if again, err := k.Revocations(t.Context(), snp.Milan); err != nil || !bytes.Equal(again, first) {
		t.Error(err)
	}
	for s.count() == 0 { // it is asked for meanwhile
		time.Sleep(time.Millisecond)
	}
	newer := amds()[snp.Milan].List(now.Add(12*time.Hour), now.AddDate(0, 2, 0))
	s.mu.Lock()
	s.spoil, s.answer["/vcek/v1/Milan/crl"] = nil, newer
	s.mu.Unlock()
	for { // once the failure is forgotten
		at.move(time.Minute)
		got, err := k.Revocations(t.Context(), snp.Milan)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Equal(got, newer) {
			break
		}
		time.Sleep(time.Millisecond)
	}
}

func TestKDSConfig(t *testing.T) {
	good := snp.KDSConfig{HTTP: http.DefaultClient, Now: time.Now}
	for name, spoil := range map[string]func(*snp.KDSConfig){
		"address without host": func(c *snp.KDSConfig) { c.URL = "https:///x" },
		"other scheme":         func(c *snp.KDSConfig) { c.URL = "file:///etc" },
		"password in address":  func(c *snp.KDSConfig) { c.URL = "https://a:b@host" },
		"no client":            func(c *snp.KDSConfig) { c.HTTP = nil },
		"no clock":             func(c *snp.KDSConfig) { c.Now = nil },
		"time below zero":      func(c *snp.KDSConfig) { c.Wait = -1 },
	} {
		k, err := snp.NewKDS(good)
		if err != nil {
			t.Fatal(err)
		}
		k.Close()
		c := good
		spoil(&c)
		if _, err := snp.NewKDS(c); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
