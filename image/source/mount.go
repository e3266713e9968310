package source

import (
	"context"
	"io"
	"path"
)

// Mounted is base with over mounted at a folder of it: what base has there is hidden.
func Mounted(base Source, at string, over Source) Source {
	return &merged{layers: []layer{{src: base}, {src: Under(at, over), hides: at}}}
}

// Under is a file system's source with all paths below a folder. The file system's lost+found is left out.
func Under(at string, src Source) Source { return &under{at, src} }

type under struct {
	at  string
	src Source
}

func (u *under) Walk(ctx context.Context, f WalkFunc) error {
	return u.src.Walk(ctx, func(e Entry, content io.Reader) error {
		if e.Path == "/lost+found" {
			return nil
		}
		e.Path = path.Join(u.at, e.Path)
		if e.Type == HardLink {
			e.Link = path.Join(u.at, e.Link)
		}
		return f(e, content)
	})
}
