package launch

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/tool"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// Server is the key server (*client.Client).
type Server interface {
	Session(ctx context.Context, r wire.SessionRequest) (wire.Session, error)
	Measurement(ctx context.Context, session string, r wire.MeasurementRequest) (wire.Packet, error)
}

// Launcher starts machines.
type Launcher struct {
	Server Server
	Stdin  io.Reader // of the console, where it is stdio
	Stdout io.Writer
	Now    func() time.Time
	Done   func(s Stage, took time.Duration, err error) // told after each stage; may be nil
}

// Stage is a part of the launch.
type Stage string

// The stages, in their order.
const (
	Platform Stage = "platform" // ask a QEMU what the host can do
	Session  Stage = "session"  // key server makes a launch session
	Start    Stage = "start"    // QEMU starts; the secure processor encrypts and measures the firmware
	Measure  Stage = "measure"  // QEMU gives the measurement
	Release  Stage = "release"  // key server judges it and seals the secret
	Inject   Stage = "inject"   // the secret goes into the guest, and the guest begins to run
	Guest    Stage = "guest"    // until the guest has ended
)

// Bounds of the stages. Starting takes longest, where much memory has to be pinned.
const (
	startTime  = 5 * time.Minute
	queryTime  = 30 * time.Second
	serverTime = time.Minute
	retryPause = time.Second
)

// Run starts the machine and returns when it has ended: nil if it powered itself off, ErrRestart if it wants to
// start again. A machine that gets no secret never runs an instruction.
func (l Launcher) Run(ctx context.Context, s Spec) (err error) {
	if err := s.Validate(); err != nil {
		return err
	}
	for _, file := range []string{s.Firmware, s.Disk} {
		if _, err := os.Stat(file); err != nil {
			return err
		}
	}
	dir, err := os.MkdirTemp("", "sealboot-launch-") // 0700
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	g := guest{
		dhCert: filepath.Join(dir, "dh-cert"), session: filepath.Join(dir, "session"), control: filepath.Join(dir, "qmp"),
	}
	err = l.stage(Platform, func() error { return l.askPlatform(ctx, s, filepath.Join(dir, "probe"), &g) })
	if err != nil {
		return fmt.Errorf("ask QEMU about SEV: %w", err)
	}
	var session wire.Session
	err = l.stage(Session, func() (err error) {
		session, err = l.openSession(ctx, s, &g)
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for a launch session: %w", err)
	}
	return l.runGuest(ctx, s, g, session)
}

// askPlatform starts a QEMU only to ask it.
func (l Launcher) askPlatform(ctx context.Context, s Spec, socket string, g *guest) error {
	ctx, cancel := context.WithTimeout(ctx, queryTime)
	defer cancel()
	p := start(ctx, tool.Command{Path: s.QEMU, Args: probeArgs(socket)})
	q, err := p.dial(ctx, socket)
	defer func() { p.end(q) }()
	if err != nil {
		return err
	}
	g.platform, err = capabilities(ctx, q)
	return err
}

func (l Launcher) openSession(ctx context.Context, s Spec, g *guest) (wire.Session, error) {
	request := wire.SessionRequest{Image: s.Image, PDH: g.platform.pdh, CertChain: g.platform.certChain, CA: s.CA}
	if s.CertChain != nil {
		request.CertChain = s.CertChain
	}
	session, err := ask(ctx, func(ctx context.Context) (wire.Session, error) { return l.Server.Session(ctx, request) })
	if err != nil {
		return wire.Session{}, err
	}
	g.policy = session.Policy
	for name, content := range map[string][]byte{g.dhCert: session.DHCert, g.session: session.Blob} {
		if err := os.WriteFile(name, []byte(base64.StdEncoding.EncodeToString(content)), 0o600); err != nil {
			return wire.Session{}, err
		}
	}
	return session, nil
}

// runGuest starts the machine, brings it its secret and waits for its end.
func (l Launcher) runGuest(ctx context.Context, s Spec, g guest, session wire.Session) error {
	command := tool.Command{Path: s.QEMU, Args: s.args(g)}
	if s.Serial == "stdio" {
		command.Stdin, command.Stdout = l.Stdin, l.Stdout
	}
	var p *process
	var q *qmp.Client
	defer func() {
		if p != nil {
			p.end(q)
		}
	}()
	err := l.stage(Start, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, startTime)
		defer cancel()
		p = start(ctx, command)
		q, err = p.dial(ctx, g.control)
		return err
	})
	if err != nil {
		return fmt.Errorf("start QEMU: %w", err)
	}
	var m measurement
	err = l.stage(Measure, func() (err error) {
		ctx, cancel := context.WithTimeout(ctx, queryTime)
		defer cancel()
		m, err = launchMeasure(ctx, q, session.Policy)
		return err
	})
	if err != nil {
		return fmt.Errorf("get the launch measurement: %w", p.explain(err))
	}
	var packet wire.Packet
	err = l.stage(Release, func() (err error) {
		request := wire.MeasurementRequest{Measurement: m.data, APIMajor: m.major, APIMinor: m.minor, Build: m.build}
		packet, err = ask(ctx, func(ctx context.Context) (wire.Packet, error) {
			return l.Server.Measurement(ctx, session.ID, request)
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("ask for the secret: %w", err)
	}
	err = l.stage(Inject, func() error {
		ctx, cancel := context.WithTimeout(ctx, queryTime)
		defer cancel()
		return inject(ctx, q, packet)
	})
	if err != nil {
		return fmt.Errorf("give the guest its secret: %w", p.explain(err))
	}
	return l.stage(Guest, func() error { return p.wait(ctx, q) })
}

// inject hands over the packet and lets the guest run.
func inject(ctx context.Context, q *qmp.Client, packet wire.Packet) error {
	err := q.Execute(ctx, "sev-inject-launch-secret", map[string]string{
		"packet-header": base64.StdEncoding.EncodeToString(packet.Header),
		"secret":        base64.StdEncoding.EncodeToString(packet.Secret),
	}, nil)
	if err != nil {
		return err
	}
	return q.Execute(ctx, "cont", nil, nil)
}

// stage runs a part and tells how long it took, also when it failed.
func (l Launcher) stage(s Stage, work func() error) error {
	begun := l.Now()
	err := work()
	if l.Done != nil {
		l.Done(s, l.Now().Sub(begun), err)
	}
	return err
}

// ask puts a request to the key server, again while it says that it is busy.
func ask[T any](ctx context.Context, request func(context.Context) (T, error)) (T, error) {
	var zero T
	ctx, cancel := context.WithTimeout(ctx, serverTime)
	defer cancel()
	for {
		answer, err := request(ctx)
		if err == nil {
			return answer, nil
		}
		refused := (*client.Refused)(nil)
		if !errors.As(err, &refused) {
			return zero, err
		}
		if !refused.Temporary() {
			if isNo(refused.Class) {
				err = fmt.Errorf("%w: %w", ErrRefused, err)
			}
			return zero, err
		}
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return zero, err
		}
	}
}

// isNo tells an answer to the question from trouble on the way.
func isNo(c wire.Class) bool {
	switch c {
	case wire.Refused, wire.UntrustedPlatform, wire.UnknownSession, wire.Used, wire.Expired:
		return true
	}
	return false
}

// isRefusal says whether QEMU answered, with an error.
func isRefusal(err error) bool {
	answer := (*qmp.Error)(nil)
	return errors.As(err, &answer)
}
