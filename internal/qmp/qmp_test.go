package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// both gives a client that talks to a server, over a pipe.
func both(t *testing.T, handle Handler) (*Client, *Server) {
	t.Helper()
	near, far := net.Pipe()
	s := &Server{Handle: handle}
	s.Version.QEMU.Major, s.Version.QEMU.Minor = 7, 2
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, far) }()
	c, err := Config{}.New(ctx, near)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := <-ended; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	return c, s
}

func TestBothSides(t *testing.T) {
	c, s := both(t, func(_ context.Context, command string, args json.RawMessage) (any, error) {
		switch command {
		case "echo":
			return args, nil
		case "nothing":
			return nil, nil
		case "fail":
			return nil, fmt.Errorf("internal: %w", errors.New("broken <here>"))
		}
		return nil, &Error{CommandNotFound, fmt.Sprintf("The command %s has not been found", command)}
	})
	if v := c.Version().QEMU; v.Major != 7 || v.Minor != 2 {
		t.Errorf("version %+v", v)
	}
	var got map[string]any
	if err := c.Execute(t.Context(), "echo", map[string]any{"a": "<&>"}, &got); err != nil || got["a"] != "<&>" {
		t.Errorf("echo gives %v, %v", got, err)
	}
	for _, none := range []any{nil, json.RawMessage(nil), json.RawMessage{}} {
		if err := c.Execute(t.Context(), "nothing", none, nil); err != nil {
			t.Error(err)
		}
	}
	var refused *Error
	if err := c.Execute(t.Context(), "fail", nil, nil); !errors.As(err, &refused) || *refused != (Error{GenericError, "internal: broken <here>"}) {
		t.Errorf("fail gives %v", err)
	}
	if err := c.Execute(t.Context(), "other", nil, nil); !errors.As(err, &refused) || refused.Class != CommandNotFound {
		t.Errorf("other gives %v", err)
	}
	s.Emit(Event{Name: "RESUME", Timestamp: Timestamp{1, 2}})
	select {
	case e := <-c.Events():
		if e.Name != "RESUME" || e.Timestamp != (Timestamp{1, 2}) {
			t.Errorf("event %+v", e)
		}
	case <-time.After(5 * time.Second):
		t.Error("no event within 5 s")
	}
	if err := c.Execute(t.Context(), "echo", []int{1}, &got); !errors.As(err, &refused) || refused.Desc != "QMP input member 'arguments' must be an object" {
		t.Errorf("arguments that are a list give %v", err)
	}
	c.Close()
	<-c.Done()
	if err := c.Execute(t.Context(), "nothing", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestExecuteGivesUp(t *testing.T) {
	c, _ := both(t, func(ctx context.Context, command string, _ json.RawMessage) (any, error) {
		if command == "hang" {
			time.Sleep(100 * time.Millisecond)
		}
		return command, nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Execute(ctx, "hang", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gives %v", err)
	}
	var got string
	if err := c.Execute(t.Context(), "next", nil, &got); err != nil || got != "next" {
		t.Errorf("the late answer was taken for the next: %q, %v", got, err)
	}
}

// TestNoEventsBeforeNegotiation: a client that has not negotiated hears no events, and none is kept for it.
func TestNoEventsBeforeNegotiation(t *testing.T) {
	near, far := net.Pipe()
	defer near.Close()
	s := &Server{}
	s.Emit(Event{Name: "NOBODY_THERE"})
	go s.Serve(t.Context(), far)
	near.SetDeadline(time.Now().Add(5 * time.Second))
	in := bufio.NewReader(near)
	if _, err := readLine(in, MaxReply); err != nil {
		t.Fatal(err)
	}
	s.Emit(Event{Name: "TOO_EARLY"})
	for _, want := range []string{`{"return":{}}`, `"NOW"`} {
		if want == `"NOW"` {
			go s.Emit(Event{Name: "NOW"})
		} else if _, err := io.WriteString(near, negotiateLine); err != nil {
			t.Fatal(err)
		}
		line, err := readLine(in, MaxReply)
		if err != nil || !strings.Contains(string(line), want) {
			t.Errorf("the client gets %s, %v, want %s", line, err, want)
		}
	}
}

// TestAnswersNobodyAskedFor: a second answer, or one to nothing, disturbs no other command.
func TestAnswersNobodyAskedFor(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		io.WriteString(far, `{"QMP":{"version":{}}}`+"\n")
		in := bufio.NewReader(far)
		for id := 1; ; id++ {
			if _, err := readLine(in, MaxCommand); err != nil {
				return
			}
			for range 4 {
				fmt.Fprintf(far, `{"return":%d,"id":%d}`+"\n", id, id)
			}
			io.WriteString(far, `{"return":0}`+"\n"+`{"return":0,"id":"x"}`+"\n"+`{"error":{"class":"GenericError","desc":"x"},"id":99}`+"\n")
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := Config{}.New(ctx, near)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for want := 2; want < 5; want++ {
		var got int
		if err := c.Execute(ctx, "next", nil, &got); err != nil || got != want {
			t.Errorf("answer %d, %v, want %d", got, err, want)
		}
	}
}

// TestStuckServer: a server that reads nothing does not hold a command up for ever.
func TestStuckServer(t *testing.T) {
	near, far := net.Pipe()
	go func() {
		io.WriteString(far, `{"QMP":{"version":{}}}`+"\n")
		readLine(bufio.NewReader(io.LimitReader(far, 50)), MaxCommand)
		io.WriteString(far, `{"return":{},"id":1}`+"\n")
	}()
	c, err := Config{}.New(t.Context(), near)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := c.Execute(ctx, "stop", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("gives %v", err)
	}
	<-c.Done()
}

// TestServerRefusals compares with what a QEMU 7.2 answers; qemu_test.go asks the one installed.
func TestServerRefusals(t *testing.T) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			s := &Server{Handle: func(_ context.Context, command string, _ json.RawMessage) (any, error) {
				return nil, &Error{CommandNotFound, fmt.Sprintf("The command %s has not been found", command)}
			}}
			go s.Serve(t.Context(), far)
			near.SetDeadline(time.Now().Add(5 * time.Second))
			in := bufio.NewReader(near)
			if _, err := readLine(in, MaxReply); err != nil {
				t.Fatal(err)
			}
			checkRefusal(t, in, near, c)
		})
	}
}

type refusal struct{ name, send, want string }

const negotiateLine = `{"execute":"qmp_capabilities"}`

var refusals = []refusal{
	{"before negotiation", `{"execute":"query-status","id":1}`, `{"id":1,"error":{"class":"CommandNotFound","desc":"Expecting capabilities negotiation with 'qmp_capabilities'"}}`},
	{"negotiation", `{"execute":"qmp_capabilities","id":"a"}`, `{"return":{},"id":"a"}`},
	{"negotiation again", negotiateLine + `{"execute":"qmp_capabilities"}`, `{"return":{}}{"error":{"class":"CommandNotFound","desc":"Capabilities negotiation is already complete, command ignored"}}`},
	{"unknown command", negotiateLine + `{"execute":"no-such"}`, `{"return":{}}{"error":{"class":"CommandNotFound","desc":"The command no-such has not been found"}}`},
	{"no object", `[1]`, `{"error":{"class":"GenericError","desc":"QMP input must be a JSON object"}}`},
	{"no command", `{"id":{"x":1}}`, `{"id":{"x":1},"error":{"class":"GenericError","desc":"QMP input lacks member 'execute'"}}`},
	{"command not a string", `{"execute":1}`, `{"error":{"class":"GenericError","desc":"QMP input member 'execute' must be a string"}}`},
	{"arguments not an object", negotiateLine + `{"execute":"stop","arguments":"x"}`, `{"return":{}}{"error":{"class":"GenericError","desc":"QMP input member 'arguments' must be an object"}}`},
	{"unknown member", `{"execute":"stop","argument":{}}`, `{"error":{"class":"GenericError","desc":"QMP input member 'argument' is unexpected"}}`},
	{"out of band", `{"exec-oob":"stop","id":1}`, `{"id":1,"error":{"class":"GenericError","desc":"QMP input member 'exec-oob' is unexpected"}}`},
}

// checkRefusal sends without a newline, which QMP does not ask for, and reads as many answers as are wanted.
func checkRefusal(t *testing.T, in *bufio.Reader, out io.Writer, c refusal) {
	t.Helper()
	go io.WriteString(out, c.send)
	want := json.NewDecoder(strings.NewReader(c.want))
	for want.More() {
		var wanted, answered any
		if err := want.Decode(&wanted); err != nil {
			t.Fatal(err)
		}
		line, err := readLine(in, MaxReply)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(line, &answered); err != nil {
			t.Fatal(err)
		}
		w, _ := json.Marshal(wanted)
		a, _ := json.Marshal(answered)
		if string(w) != string(a) {
			t.Errorf("answer %s, want %s", a, w)
		}
	}
}

func TestBounds(t *testing.T) {
	t.Run("reply", func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			chunk := strings.Repeat("x", 1<<16)
			for {
				if _, err := io.WriteString(far, chunk); err != nil {
					return
				}
			}
		}()
		if _, err := (Config{}).New(t.Context(), near); !errors.Is(err, ErrTooLong) {
			t.Errorf("a greeting without end gives %v", err)
		}
	})
	t.Run("command", func(t *testing.T) {
		near, far := net.Pipe()
		go func() {
			io.Copy(io.Discard, near)
		}()
		go func() {
			io.WriteString(near, `{"execute":"`)
			chunk := strings.Repeat("x", 1<<16)
			for {
				if _, err := io.WriteString(near, chunk); err != nil {
					return
				}
			}
		}()
		s := &Server{}
		if err := s.Serve(t.Context(), far); !errors.Is(err, ErrTooLong) {
			t.Errorf("a command without end gives %v", err)
		}
	})
	t.Run("no greeting", func(t *testing.T) {
		near, far := net.Pipe()
		go io.WriteString(far, "SSH-2.0-x\r\n")
		if _, err := (Config{}).New(t.Context(), near); !errors.Is(err, ErrProtocol) {
			t.Errorf("gives %v", err)
		}
	})
	t.Run("silence", func(t *testing.T) {
		near, _ := net.Pipe()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := (Config{}).New(ctx, near); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("gives %v", err)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, seed := range []string{
		`{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "Debian"}, "capabilities": ["oob"]}}`,
		`{"return": {"status": "prelaunch", "singlestep": false, "running": false}, "id": 1}`,
		`{"id": 2, "error": {"class": "GenericError", "desc": "SEV is not enabled"}}`,
		`{"timestamp": {"seconds": 1700000000, "microseconds": 5}, "event": "SHUTDOWN", "data": {"guest": false, "reason": "host-qmp-quit"}}`,
		`{"return": null}`, `{"error": null}`, `{}`, ``,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if _, err := parseGreeting(line); err != nil && !errors.Is(err, ErrProtocol) {
			t.Errorf("greeting: %v", err)
		}
		r, err := parseReply(line)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Errorf("reply: %v", err)
			}
			return
		}
		if (r.Return != nil) == (r.Error != nil) && r.Name == "" {
			t.Errorf("%q is neither answer nor event: %+v", line, r)
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, c := range refusals {
		f.Add([]byte(c.send))
	}
	f.Add([]byte(`{"execute":"qmp_capabilities","arguments":{"enable":["oob"]}}`))
	f.Add([]byte(`{"execute":"qmp_capabilities"}` + "\r\n" + `{"execute":"query-sev","id":null}`))
	f.Fuzz(func(t *testing.T, input []byte) {
		var out strings.Builder
		s := &Server{Handle: func(_ context.Context, command string, args json.RawMessage) (any, error) {
			if args != nil && args[0] != '{' {
				t.Errorf("arguments %q", args)
			}
			return args, nil
		}}
		if err := s.Serve(t.Context(), &script{Reader: strings.NewReader(string(input)), Builder: &out}); err != nil && !errors.Is(err, ErrTooLong) {
			t.Errorf("serve: %v", err)
		}
		for line := range strings.Lines(out.String()) {
			if !json.Valid([]byte(line)) {
				t.Errorf("answer %q is not JSON", line)
			}
		}
	})
}

// script is a client that says its part and leaves.
type script struct {
	io.Reader
	*strings.Builder
}

func (*script) Close() error { return nil }
