package keyserver

import (
	"context"
	"database/sql"
	"sync"
)

// statements prepares each query of a database or a connection once. Queries are constants, so they are few.
type statements struct {
	on interface {
		runner
		PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	}
	mu       sync.Mutex
	prepared map[string]*sql.Stmt
}

func (s *statements) prepare(ctx context.Context, query string) (*sql.Stmt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.prepared[query]; p != nil {
		return p, nil
	}
	p, err := s.on.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	if s.prepared == nil {
		s.prepared = make(map[string]*sql.Stmt)
	}
	s.prepared[query] = p
	return p, nil
}

// close must come before the connection's end.
func (s *statements) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.prepared {
		p.Close()
	}
	s.prepared = nil
}

func (s *statements) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	p, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return p.ExecContext(ctx, args...)
}

func (s *statements) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	p, err := s.prepare(ctx, query)
	if err != nil {
		return nil, err
	}
	return p.QueryContext(ctx, args...)
}

func (s *statements) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	p, err := s.prepare(ctx, query)
	if err != nil {
		return s.on.QueryRowContext(ctx, query, args...) // fails likewise
	}
	return p.QueryRowContext(ctx, args...)
}
