package launch

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/tool"
)

// goodbye is how long a QEMU that was told to quit may take before it is killed.
const goodbye = 3 * time.Second

// process is a QEMU that runs.
type process struct {
	kill func()
	over chan struct{} // closed when it has ended
	err  error         // valid then

	restarted atomic.Bool // the guest wanted to start again
}

// start runs the command. The context does not end it, so that it can be told to quit first: end does.
func start(ctx context.Context, c tool.Command) *process {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	p := &process{kill: cancel, over: make(chan struct{})}
	go func() {
		defer close(p.over)
		p.err = tool.Run(ctx, c)
	}()
	return p
}

// dial connects to the process's QMP socket, unless it ends before.
func (p *process) dial(ctx context.Context, socket string) (*qmp.Client, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-p.over:
			cancel()
		case <-ctx.Done():
		}
	}()
	q, err := qmp.Config{OnEvent: p.hear}.Dial(ctx, "unix", socket)
	if err != nil {
		select {
		case <-p.over:
			return nil, p.failure()
		default:
		}
		return nil, err
	}
	return q, nil
}

// hear notes why the guest ends (event SHUTDOWN, QEMU qapi/run-state.json).
func (p *process) hear(e qmp.Event) {
	var why struct {
		Reason string `json:"reason"`
	}
	if e.Name == "SHUTDOWN" && json.Unmarshal(e.Data, &why) == nil && why.Reason == "guest-reset" {
		p.restarted.Store(true)
	}
}

// wait waits for the guest's own end.
func (p *process) wait(ctx context.Context, q *qmp.Client) error {
	select {
	case <-p.over:
	case <-ctx.Done():
		return ctx.Err()
	}
	select { // what QEMU said last
	case <-q.Done():
	case <-time.After(goodbye):
	}
	if p.err == nil && p.restarted.Load() {
		return ErrRestart
	}
	return p.err
}

// failure says why a process ended that should not have.
func (p *process) failure() error {
	if p.err == nil {
		return errors.New("QEMU ended by itself")
	}
	return p.err
}

// explain gives the reason for a lost connection, where the process's end is the reason.
func (p *process) explain(err error) error {
	if errors.Is(err, qmp.ErrClosed) {
		select {
		case <-p.over:
			return p.failure()
		case <-time.After(goodbye):
		}
	}
	return err
}

// end ends the process, by its own handle, and returns when it is gone.
func (p *process) end(q *qmp.Client) {
	defer p.kill()
	if q != nil {
		ctx, cancel := context.WithTimeout(context.Background(), goodbye)
		defer cancel()
		q.Execute(ctx, "quit", nil, nil)
		select {
		case <-p.over:
		case <-ctx.Done():
		}
		q.Close()
	}
	p.kill()
	<-p.over
}
