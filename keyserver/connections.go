package keyserver

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"

	"github.com/sealboot/sealboot/keyserver/access"
)

// limited lets so many connections of one listener be open at once. One more is accepted all the same, and one that is not
// worked for gives way: of the source that has the most of those, the one that has waited longest. So whoever opens connections and says
// nothing, or half of something, or does not read, takes from himself first; and nobody waits for anybody's deadline.
//
// It passes the listener's own connections on, since a wrapped one would hide from the http.Server that it is one of TLS.
type limited struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[net.Conn]*connection
	turn uint64 // counts what happened
}

type connection struct {
	source  netip.Prefix
	waiting uint64 // turn since which nothing is worked on for it
	working bool
}

// limit bounds a listener's connections. The http.Server must be bound too.
func limit(l net.Listener, most int) *limited {
	return &limited{Listener: l, most: most, open: make(map[net.Conn]*connection)}
}

// bind has the server tell of its connections and requests.
func (l *limited) bind(h *http.Server) {
	type key struct{}
	h.ConnState = func(c net.Conn, state http.ConnState) {
		if state == http.StateClosed || state == http.StateHijacked {
			l.mu.Lock()
			defer l.mu.Unlock()
			delete(l.open, c)
		}
	}
	h.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) }
	inner := h.Handler
	h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(key{}).(net.Conn)
		defer l.work(c, false)
		if r.Body == http.NoBody {
			l.work(c, true)
		} else {
			r.Body = &arriving{r.Body, func() { l.work(c, true) }}
		}
		inner.ServeHTTP(w, r)
	})
}

// arriving is a request's body. When all of it is there, the work begins, and with it the time in which the connection is not closed.
type arriving struct {
	io.ReadCloser
	all func()
}

func (b *arriving) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		b.all()
	}
	return n, err
}

// work says that a request is worked on, or is answered. A connection that had to give way meanwhile is not known any more.
func (l *limited) work(c net.Conn, working bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one := l.open[c]; one != nil {
		l.turn++
		one.working, one.waiting = working, l.turn
	}
}

// Accept gives the next connection, and closes another one if there are too many.
func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
		closed := l.add(c, access.SourceOf(host))
		if closed != nil {
			go closed.Close() // one of TLS says good-bye, for which it waits
		}
		if closed != c {
			return c, nil
		}
	}
}

// add notes a connection, and gives one that has to be closed for it: itself if all others are worked for.
func (l *limited) add(c net.Conn, source netip.Prefix) (closed net.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.open) >= l.most {
		if closed = l.choose(); closed == nil {
			return c
		}
		delete(l.open, closed)
	}
	l.turn++
	l.open[c] = &connection{source: source, waiting: l.turn}
	return closed
}

func (l *limited) choose() (c net.Conn) {
	have := make(map[netip.Prefix]int)
	for _, one := range l.open {
		if !one.working {
			have[one.source]++
		}
	}
	for other, one := range l.open {
		if one.working {
			continue
		}
		if c == nil || have[one.source] > have[l.open[c].source] ||
			have[one.source] == have[l.open[c].source] && one.waiting < l.open[c].waiting {
			c = other
		}
	}
	return c
}
