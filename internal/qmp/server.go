package qmp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"sync"
	"time"
)

// Handler executes one command. args is an object or nil. An error that is no *Error is
// answered as one of the generic class.
type Handler func(ctx context.Context, command string, args json.RawMessage) (result any, err error)

// Server is one monitor of a QEMU: it serves one client at a time, and forgets with the
// connection what was negotiated.
type Server struct {
	Version Version
	Handle  Handler

	mu      sync.Mutex
	current *session
}

// session is one client's connection.
type session struct {
	mu         sync.Mutex // held while a message is written
	out        io.Writer
	negotiated bool

	answering sync.Mutex // held while a command is executed and answered
}

// Serve greets and answers until the client leaves or ctx ends; it closes conn. The client's
// leaving is no error.
func (s *Server) Serve(ctx context.Context, conn io.ReadWriteCloser) error {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	client := &session{out: conn}
	s.mu.Lock()
	s.current = client
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.current = nil
		s.mu.Unlock()
	}()

	var g greeting
	g.QMP.Version, g.QMP.Capabilities = s.Version, []json.RawMessage{}
	if err := client.send(g); err != nil {
		return err
	}
	in := &allowance{from: conn}
	messages := json.NewDecoder(in)
	for {
		in.left = MaxCommand
		var message json.RawMessage
		err := messages.Decode(&message)
		var syntax *json.SyntaxError
		switch {
		case errors.As(err, &syntax):
			// Where the next message would begin cannot be known.
			return client.send(failure(Errorf("JSON parse error, %v", err), nil))
		case errors.Is(err, ErrTooLong):
			return err
		case err != nil: // the client left
			return nil
		}
		client.answering.Lock()
		err = client.send(s.answer(ctx, client, message))
		client.answering.Unlock()
		if err != nil {
			return err
		}
	}
}

// Emit sends an event to the client, if there is one that has negotiated.
func (s *Server) Emit(e Event) {
	s.mu.Lock()
	client := s.current
	s.mu.Unlock()
	if client == nil {
		return
	}
	client.mu.Lock()
	negotiated := client.negotiated
	client.mu.Unlock()
	if negotiated {
		client.send(e) // a client that has left hears no events
	}
}

// Idle waits until no command is under way, for at most so long: a client may not take its answer.
func (s *Server) Idle(limit time.Duration) {
	s.mu.Lock()
	client := s.current
	s.mu.Unlock()
	for begun := time.Now(); client != nil && time.Since(begun) < limit; time.Sleep(time.Millisecond) {
		if client.answering.TryLock() {
			client.answering.Unlock()
			return
		}
	}
}

func (s *session) send(v any) error {
	line, err := encode(v)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.out.Write(line)
	return err
}

type success struct {
	Return any             `json:"return"`
	ID     json.RawMessage `json:"id,omitempty"`
}

type failed struct {
	ID    json.RawMessage `json:"id,omitempty"`
	Error *Error          `json:"error"`
}

func failure(err error, id json.RawMessage) failed {
	var known *Error
	if !errors.As(err, &known) {
		known = Errorf("%v", err)
	}
	return failed{Error: known, ID: id}
}

// answer executes one message, with the refusals of QEMU's qapi/qmp-dispatch.c and monitor/qmp.c.
func (s *Server) answer(ctx context.Context, client *session, message json.RawMessage) any {
	command, err := parseCommand(message)
	if err != nil {
		return failure(err, command.id)
	}
	client.mu.Lock()
	negotiated := client.negotiated
	client.mu.Unlock()
	const negotiate = "qmp_capabilities"
	switch {
	case command.name == negotiate && negotiated:
		return failure(&Error{CommandNotFound, "Capabilities negotiation is already complete, command ignored"}, command.id)
	case command.name == negotiate:
		if err := checkEnable(command.args); err != nil {
			return failure(err, command.id)
		}
		client.mu.Lock()
		client.negotiated = true
		client.mu.Unlock()
		return success{Return: struct{}{}, ID: command.id}
	case !negotiated:
		return failure(&Error{CommandNotFound, "Expecting capabilities negotiation with 'qmp_capabilities'"}, command.id)
	}
	result, err := s.Handle(ctx, command.name, command.args)
	if err != nil {
		return failure(err, command.id)
	}
	if result == nil {
		result = struct{}{}
	}
	return success{Return: result, ID: command.id}
}

type command struct {
	name string
	args json.RawMessage // an object, or nil
	id   json.RawMessage
}

// parseCommand gives the id also with an error, if there was one.
func parseCommand(message json.RawMessage) (command, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(message, &members); err != nil || members == nil {
		return command{}, Errorf("QMP input must be a JSON object")
	}
	c := command{id: members["id"]}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		switch name {
		case "id":
		case "execute":
			if err := json.Unmarshal(members[name], &c.name); err != nil || members[name][0] != '"' {
				return command{id: c.id}, Errorf("QMP input member 'execute' must be a string")
			}
		case "arguments":
			if c.args = members[name]; c.args[0] != '{' {
				return command{id: c.id}, Errorf("QMP input member 'arguments' must be an object")
			}
		default:
			return command{id: c.id}, Errorf("QMP input member '%s' is unexpected", name)
		}
	}
	if members["execute"] == nil {
		return command{id: c.id}, Errorf("QMP input lacks member 'execute'")
	}
	return c, nil
}

// checkEnable refuses capabilities: none is offered.
func checkEnable(args json.RawMessage) error {
	if args == nil {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(args, &members); err != nil {
		return Errorf("Invalid parameter type, expected: object")
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		var enable []string
		if name != "enable" {
			return Errorf("Parameter '%s' is unexpected", name)
		}
		if err := json.Unmarshal(members[name], &enable); err != nil {
			return Errorf("Invalid parameter type for 'enable', expected: array")
		}
		if len(enable) > 0 {
			return Errorf("Capability '%s' not available", enable[0])
		}
	}
	return nil
}

// allowance is a reader that gives up when a message takes more than it is allowed.
type allowance struct {
	from io.Reader
	left int
}

func (a *allowance) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, fmt.Errorf("%w: more than %d bytes", ErrTooLong, MaxCommand)
	}
	n, err := a.from.Read(p[:min(len(p), a.left)])
	a.left -= n
	return n, err
}
