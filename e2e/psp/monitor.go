package psp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"
)

// monitor is a QMP monitor of the user's: the stand-in serves it, and has one of the real
// QEMU's behind it.
type monitor struct {
	spec    monitorSpec
	server  *qmp.Server
	backend *qmp.Client
	stdio   io.ReadWriteCloser
	listen  net.Listener
	first   net.Conn // a client that is there already
}

// openMonitor listens or connects as the user asked, and waits for a client where QEMU would.
func openMonitor(ctx context.Context, spec monitorSpec, stdin io.Reader, stdout io.Writer) (*monitor, error) {
	m := &monitor{spec: spec, server: &qmp.Server{}}
	if spec.stdio {
		m.stdio = standardStreams{stdin, stdout}
		return m, nil
	}
	if !spec.server {
		var d net.Dialer
		var err error
		m.first, err = d.DialContext(ctx, spec.network, spec.address)
		return m, err
	}
	if spec.network == "unix" {
		if err := removeSocket(spec.address); err != nil {
			return nil, err
		}
	}
	var listen net.ListenConfig
	var err error
	if m.listen, err = listen.Listen(ctx, spec.network, spec.address); err != nil {
		return nil, err
	}
	if spec.wait {
		stop := context.AfterFunc(ctx, func() { m.listen.Close() })
		defer stop()
		if m.first, err = m.listen.Accept(); err != nil {
			m.close()
			return nil, err
		}
	}
	return m, nil
}

// removeSocket removes a socket that an earlier machine left, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() == fs.ModeSocket:
		return os.Remove(path)
	}
	return nil // listening will fail and say so
}

// serve serves one client after another until ctx ends.
func (m *monitor) serve(ctx context.Context) {
	if m.first != nil {
		m.server.Serve(ctx, m.first)
	}
	if m.listen == nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { m.listen.Close() })
	defer stop()
	for {
		conn, err := m.listen.Accept()
		if err != nil {
			return
		}
		m.server.Serve(ctx, conn)
	}
}

// drainTimeout is how long a client may take for the last answers of a QEMU that has ended.
const drainTimeout = time.Second

// drain waits until the last events and the answer under way have been sent.
func (m *monitor) drain() {
	if m.backend == nil {
		return
	}
	late := time.After(drainTimeout)
	select {
	case <-m.backend.Done():
	case <-late:
		return
	}
	m.server.Idle(drainTimeout)
}

func (m *monitor) close() {
	if m.backend != nil {
		m.backend.Close()
	}
	if m.first != nil {
		m.first.Close()
	}
	if m.listen != nil {
		m.listen.Close() // removes a unix socket's file
	}
}

// standardStreams is a monitor on stdin and stdout. Closing it leaves both open.
type standardStreams struct {
	io.Reader
	io.Writer
}

func (standardStreams) Close() error { return nil }
