package keyserver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// limits are those of the listening side.
type limits struct {
	header, read, write, idle time.Duration // of one request, and between two
	stop                      time.Duration // for the requests under way
	headerBytes               int
	connections               int // at once: see type limited
}

// defaultLimits are what a server has outside tests.
var defaultLimits = limits{
	header:      5 * time.Second,
	read:        10 * time.Second,
	write:       20 * time.Second,
	idle:        60 * time.Second,
	stop:        10 * time.Second,
	headerBytes: 16 << 10,
	connections: 1024,
}

// Serve answers on l until ctx ends, then lets the requests under way finish, and closes l. It also ends the sessions
// whose time is over, and signs the audit when that is due.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	sweeping, stopSweep := context.WithCancel(ctx)
	var work sync.WaitGroup
	work.Go(func() { s.sweep(sweeping) })
	defer work.Wait()
	defer stopSweep()
	return s.ServeHandler(ctx, l, s.Handler())
}

// ServeHandler answers on l with another handler, as the owner's page or the metrics, under the limits of Serve.
func (s *Server) ServeHandler(ctx context.Context, l net.Listener, handler http.Handler) error {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true) // no streams to multiplex, so none to abuse
	h := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: s.limits.header,
		ReadTimeout:       s.limits.read,
		WriteTimeout:      s.limits.write,
		IdleTimeout:       s.limits.idle,
		MaxHeaderBytes:    s.limits.headerBytes,
		Protocols:         protocols,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	limited := limit(l, s.limits.connections)
	limited.bind(h)
	failed := make(chan error, 1)
	go func() { failed <- h.Serve(limited) }()
	select {
	case err := <-failed:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.limits.stop)
	defer cancel()
	err := h.Shutdown(stop)
	if errors.Is(err, context.DeadlineExceeded) {
		err = h.Close()
	}
	<-failed // http.ErrServerClosed
	return err
}

// sweepEvery is the time between two looks for sessions to end. There are few at a time, so that no launch waits for many.
const sweepEvery = time.Second

// sweep ends expired sessions, so that their keys do not lie in the store for want of a visitor, and signs the audit's
// last rows.
func (s *Server) sweep(ctx context.Context) {
	ticks := time.NewTicker(sweepEvery)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			if err := s.Expire(ctx); err != nil && ctx.Err() == nil {
				s.log.Error("cannot end expired sessions", "error", err)
			}
			if _, err := s.store.CheckpointDue(ctx, s.now()); err != nil && ctx.Err() == nil {
				s.log.Error("cannot sign the audit", "error", err)
			}
		}
	}
}
