package psp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/tool"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// machine is a running guest, and the real QEMU that runs it.
type machine struct {
	config Config
	line   *commandLine
	handle uint32

	process  *tool.Process
	control  *qmp.Client // the stand-in's own monitor
	memory   *guestMemory
	monitors []*monitor

	mu          sync.Mutex // guards what follows
	guest       *sev.Guest // nil: not a SEV guest
	measurement []byte
	image       *ovmf.Image // the firmware, if it is OVMF
}

// startTimeout is how long a QEMU may take until its monitor answers.
const startTimeout = 60 * time.Second

func (m *machine) run(ctx context.Context) (status int, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer func() {
		for _, mon := range m.monitors {
			mon.close()
		}
		if m.memory != nil {
			m.memory.close()
		}
	}()
	started, ended := make(chan struct{}), make(chan struct{})
	defer close(ended)
	go m.passSignals(ctx, cancel, started, ended)
	for _, spec := range m.line.monitors {
		mon, err := openMonitor(ctx, spec, m.config.Stdin, m.config.Stdout)
		if err != nil {
			return 1, fmt.Errorf("%s: %w", spec.text, err)
		}
		m.monitors = append(m.monitors, mon)
	}
	backends, err := m.start()
	if err != nil {
		return 1, err
	}
	close(started)
	if err := m.prepare(ctx, backends); err != nil {
		select {
		case <-m.process.Done(): // QEMU has said why on its stderr
			if status := exitStatus(m.process); status != 0 {
				return status, nil
			}
		case <-time.After(time.Second):
			m.process.Signal(unix.SIGKILL)
			exitStatus(m.process)
		}
		return 1, err
	}
	if !m.line.stopped {
		if _, err := m.resume(ctx, m.control, nil); err != nil {
			m.process.Signal(unix.SIGKILL)
			exitStatus(m.process)
			return 1, err
		}
	}
	var serving sync.WaitGroup
	for _, mon := range m.monitors {
		mon.server.Handle = func(ctx context.Context, command string, args json.RawMessage) (any, error) {
			return m.execute(ctx, mon.backend, command, args)
		}
		if mon.stdio != nil {
			go mon.server.Serve(ctx, mon.stdio) // reading stdin cannot be broken off
			continue
		}
		serving.Go(func() { mon.serve(ctx) })
	}
	status = exitStatus(m.process)
	for _, mon := range m.monitors {
		mon.drain()
	}
	cancel()
	serving.Wait()
	return status, nil
}

// passSignals hands signals on to QEMU; the end of ctx is one of them. Before QEMU has started,
// a signal ends the wait for a monitor's client.
func (m *machine) passSignals(ctx context.Context, cancel func(), started, ended <-chan struct{}) {
	for {
		select {
		case s := <-m.config.Signals:
			select {
			case <-started:
				m.process.Signal(s)
			default:
				cancel()
			}
		case <-ctx.Done():
			select {
			case <-started:
				m.process.Signal(unix.SIGTERM)
			case <-ended:
			}
			return
		case <-ended:
			return
		}
	}
}

// firstFile is the number under which a started program finds its first inherited file.
const firstFile = 3

// start starts the real QEMU with one monitor for the stand-in, then one per monitor of the
// user's, and the guest's memory as a file without a name.
func (m *machine) start() (backends []net.Conn, err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
		if err != nil {
			for _, conn := range backends {
				conn.Close()
			}
			backends = nil
		}
	}()
	options := append([]option(nil), m.line.rest...)
	options = append(options, option{name: "S"})
	usesStdin := false
	for i := range 1 + len(m.monitors) {
		near, far, err := socketPair()
		if err != nil {
			return backends, err
		}
		backends, files = append(backends, near), append(files, far)
		id := fmt.Sprintf("sev-stand-in-%d", i)
		options = append(options,
			option{"chardev", fmt.Sprintf("socket,id=%s,fd=%d", id, firstFile+i), true},
			option{"mon", fmt.Sprintf("chardev=%s,mode=control", id), true})
		if i > 0 && m.monitors[i-1].spec.stdio {
			usesStdin = true
		}
	}
	if m.guest != nil {
		if m.memory, err = newGuestMemory(m.line.memory); err != nil {
			return backends, err
		}
		for _, f := range []*os.File{m.memory.ram, m.memory.saved} {
			dup, err := duplicate(f)
			if err != nil {
				return backends, err
			}
			files = append(files, dup)
		}
		m.memory.savedPath = fmt.Sprintf("/proc/self/fd/%d", firstFile+len(files)-1)
		options = append(options, option{"object", fmt.Sprintf("memory-backend-file,id=%s,mem-path=/proc/self/fd/%d,size=%d,share=on",
			m.line.backend, firstFile+len(files)-2, m.line.memory), true})
	}
	command := tool.Command{Path: m.config.QEMU, Args: joinOptions(options), Files: files}
	if !usesStdin {
		command.Stdin, command.Stdout = m.config.Stdin, m.config.Stdout
	}
	m.process, err = tool.Start(command, m.config.Stderr)
	return backends, err
}

func socketPair() (near net.Conn, far *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make monitor: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "monitor")
	defer ours.Close() // FileConn makes its own
	if near, err = net.FileConn(ours); err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("make monitor: %w", err)
	}
	return near, theirs, nil
}

// prepare connects the monitors, and measures the guest.
func (m *machine) prepare(ctx context.Context, backends []net.Conn) (err error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	next := 0
	defer func() {
		for _, conn := range backends[next:] {
			conn.Close()
		}
	}()
	connect := func(onEvent func(qmp.Event)) (*qmp.Client, error) {
		conn := backends[next]
		next++
		return qmp.Config{OnEvent: onEvent}.New(ctx, conn)
	}
	m.control, err = connect(func(e qmp.Event) {
		if e.Name == "RESUME" { // whoever started the machine
			go m.resumed()
		}
	})
	if err != nil {
		return err
	}
	for _, mon := range m.monitors {
		mon.server.Version = m.control.Version()
		if mon.backend, err = connect(mon.server.Emit); err != nil {
			return err
		}
	}
	if m.guest == nil {
		return nil
	}
	return m.measure(ctx)
}

// resume starts the machine. The guest leaves the launch at the same moment: nothing is
// injected into a guest that runs.
func (m *machine) resume(ctx context.Context, by *qmp.Client, args any) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := by.Execute(ctx, "cont", args, nil); err != nil {
		return nil, unwrapError(err)
	}
	m.finishLocked()
	return nil, nil
}

func (m *machine) resumed() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.finishLocked()
}

// finishLocked does LAUNCH_FINISH, once.
func (m *machine) finishLocked() {
	if m.guest != nil && m.guest.State() == sev.StateLaunchSecret {
		m.guest.Finish()
	}
}

// unwrapError gives QEMU's own error, which another client is to see as it is.
func unwrapError(err error) error {
	var refused *qmp.Error
	if errors.As(err, &refused) {
		return refused
	}
	return err
}
