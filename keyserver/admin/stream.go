package admin

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// stream answers with something that is not held in memory. When it fails in the middle, the connection is cut, so that
// nobody takes a part for the whole.
func (h *Handler) stream(c *call, to route) {
	select {
	case h.streaming <- struct{}{}:
		defer func() { <-h.streaming }()
	default:
		h.problem(c, &refusal{wire.Busy, fmt.Errorf("%d exports and backups under way", maxStreaming)})
		return
	}
	out := &streamWriter{h: h, c: c, control: http.NewResponseController(c.w)}
	buffer := bufio.NewWriterSize(out, 64<<10) // what fails before it is full is a problem as any other
	err := to.stream(c, buffer)
	if err == nil {
		err = buffer.Flush()
	}
	switch {
	case err == nil && out.began:
		h.log(c, slog.LevelInfo, "administered", "status", http.StatusOK)
	case err == nil:
		h.problem(c, errors.New("there was nothing to send"))
	case !out.began:
		h.problem(c, err)
	default:
		h.log(c, slog.LevelError, "answer was cut", "cause", err)
		panic(http.ErrAbortHandler)
	}
}

// streamWriter begins the answer with the first bytes.
type streamWriter struct {
	h       *Handler
	c       *call
	control *http.ResponseController
	began   bool
}

func (s *streamWriter) Write(p []byte) (int, error) {
	if err := s.control.SetWriteDeadline(time.Now().Add(writeTime)); err != nil && !errors.Is(err, http.ErrNotSupported) { // the connection's clock, not the server's
		return 0, err
	}
	if !s.began {
		s.began = true
		s.h.send(s.c.w, http.StatusOK, "application/octet-stream", nil)
	}
	return s.c.w.Write(p)
}
