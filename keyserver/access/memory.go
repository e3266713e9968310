package access

import (
	"context"
	"slices"
	"strings"
	"sync"
)

// Memory is a Principals that lasts as long as the process, for tests.
type Memory struct {
	mu  sync.Mutex
	all []Principal // by name
}

// List gives all, by name.
func (m *Memory) List(context.Context) ([]Principal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.all), nil
}

// Add takes a new one.
func (m *Memory) Add(_ context.Context, p Principal) error {
	if err := p.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, other := range m.all {
		if other.Name == p.Name || other.Kind == p.Kind && other.Digest.Equal(p.Digest) {
			return ErrThere
		}
	}
	m.all = append(m.all, p)
	slices.SortFunc(m.all, func(a, b Principal) int { return strings.Compare(a.Name, b.Name) })
	return nil
}

// Remove takes one away.
func (m *Memory) Remove(_ context.Context, name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := len(m.all)
	m.all = slices.DeleteFunc(m.all, func(p Principal) bool { return p.Name == name })
	if len(m.all) == n {
		return ErrNoPrincipal
	}
	return nil
}

// Lookup finds the one with a credential.
func (m *Memory) Lookup(_ context.Context, kind Kind, digest Digest) (Principal, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found, err := Principal{}, ErrNoPrincipal
	for _, p := range m.all { // to the end, whatever was found
		if p.Kind == kind && p.Digest.Equal(digest) {
			found, err = p, nil
		}
	}
	return found, err
}
