package keyserver

import "context"

// Actor is who changes something, for the audit: an administrator, and the request by which.
type Actor struct {
	Name            string
	Request, Source string // empty for a command on the server's own machine
}

type actorKey struct{}

// WithActor says whose changes are made under the context. Without it their entries name nobody.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// by notes the context's actor in an entry.
func (e Entry) by(ctx context.Context) Entry {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		e.Principal, e.Request, e.Source = clean(a.Name), clean(a.Request), clean(a.Source)
	}
	return e
}
