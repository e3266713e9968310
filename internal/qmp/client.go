package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// eventsKept is how many events wait for a reader of Events; later ones are dropped.
const eventsKept = 256

// Client is a connection to a QEMU, past the negotiation of capabilities. It is for use by
// several goroutines at once.
type Client struct {
	conn    io.ReadWriteCloser
	version Version
	onEvent func(Event)
	events  chan Event

	write   sync.Mutex // held while a command is written
	mu      sync.Mutex // guards what follows
	nextID  uint64
	waiting map[string]chan reply
	ended   error // why no more answers come
	done    chan struct{}
}

// Config says what a client does beside commands.
type Config struct {
	// OnEvent, if set, is called with each event in order, from one goroutine that also reads
	// the answers: it must not wait for a command. Events of the client is then never filled.
	OnEvent func(Event)
}

// Dial connects to a QMP socket ("unix" or "tcp") and negotiates. While the socket does not
// exist or refuses, it is tried again until ctx ends.
func Dial(ctx context.Context, network, addr string) (*Client, error) {
	return Config{}.Dial(ctx, network, addr)
}

// Dial is Dial with a configuration.
func (c Config) Dial(ctx context.Context, network, addr string) (*Client, error) {
	var d net.Dialer
	for {
		conn, err := d.DialContext(ctx, network, addr)
		if err == nil {
			return c.New(ctx, conn)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to QMP at %s: %w", addr, errors.Join(ctx.Err(), err))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// New negotiates on a connection that it owns from then on, also when it fails.
func (c Config) New(ctx context.Context, conn io.ReadWriteCloser) (*Client, error) {
	client := &Client{
		conn: conn, onEvent: c.OnEvent, events: make(chan Event, eventsKept),
		waiting: map[string]chan reply{}, done: make(chan struct{}),
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	in := bufio.NewReader(conn)
	line, err := readLine(in, MaxReply)
	if err == nil {
		client.version, err = parseGreeting(line)
	}
	if err != nil {
		stop()
		conn.Close()
		return nil, fmt.Errorf("QMP greeting: %w", contextFirst(ctx, err))
	}
	go client.read(in)
	if err := client.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		stop()
		client.Close()
		return nil, fmt.Errorf("QMP negotiation: %w", contextFirst(ctx, err))
	}
	if !stop() { // ctx ended at the last moment
		client.Close()
		return nil, fmt.Errorf("QMP negotiation: %w", ctx.Err())
	}
	return client, nil
}

func contextFirst(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Version is the QEMU's, from its greeting.
func (c *Client) Version() Version { return c.version }

// Events gives events in order, and is closed with the connection. When nobody reads, events
// above some hundreds are dropped.
func (c *Client) Events() <-chan Event { return c.events }

// Done is closed when the connection has ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Execute runs a command. args is encoded as its arguments (nil: none); the answer is decoded
// into result (nil: ignored). QEMU's refusal is an *Error. An answer that comes after ctx has
// ended is dropped.
func (c *Client) Execute(ctx context.Context, command string, args, result any) error {
	answer := make(chan reply, 1)
	id, err := c.send(ctx, command, args, answer)
	if err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	var r reply
	select {
	case <-ctx.Done():
		c.forget(id)
		return fmt.Errorf("QMP %s: %w", command, ctx.Err())
	case <-c.done:
		select {
		case r = <-answer: // it came just before the end
		default:
			return fmt.Errorf("QMP %s: %w", command, c.ended)
		}
	case r = <-answer:
	}
	if r.Error != nil {
		return fmt.Errorf("QMP %s: %w", command, r.Error)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(r.Return, result); err != nil {
		return fmt.Errorf("QMP %s: %w: %w", command, ErrProtocol, err)
	}
	return nil
}

// send writes a command. When ctx ends meanwhile, half a message may be out: that ends the connection.
func (c *Client) send(ctx context.Context, command string, args any, answer chan reply) (string, error) {
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return "", c.ended
	}
	c.nextID++
	id := strconv.FormatUint(c.nextID, 10)
	c.waiting[id] = answer
	c.mu.Unlock()

	if raw, ok := args.(json.RawMessage); ok && len(raw) == 0 {
		args = nil
	}
	line, err := encode(struct {
		Execute   string          `json:"execute"`
		Arguments any             `json:"arguments,omitempty"`
		ID        json.RawMessage `json:"id"`
	}{command, args, json.RawMessage(id)})
	if err == nil {
		c.write.Lock()
		stop := context.AfterFunc(ctx, func() { c.conn.Close() })
		_, err = c.conn.Write(line)
		stop()
		c.write.Unlock()
	}
	if err != nil {
		c.forget(id)
		return "", contextFirst(ctx, err)
	}
	return id, nil
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	delete(c.waiting, id)
	c.mu.Unlock()
}

// read hands out answers and events until the connection ends.
func (c *Client) read(in *bufio.Reader) {
	err := c.readAll(in)
	c.conn.Close()
	c.mu.Lock()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || errors.Is(err, io.ErrClosedPipe) {
		err = ErrClosed
	}
	c.ended = err
	c.mu.Unlock()
	close(c.done)
	close(c.events)
}

func (c *Client) readAll(in *bufio.Reader) error {
	for {
		line, err := readLine(in, MaxReply)
		if err != nil {
			return err
		}
		r, err := parseReply(line)
		if err != nil {
			return err
		}
		if r.Name != "" {
			c.emit(r.Event)
			continue
		}
		c.mu.Lock()
		answer := c.waiting[string(r.ID)]
		delete(c.waiting, string(r.ID))
		c.mu.Unlock()
		if answer != nil {
			answer <- r
		}
	}
}

func (c *Client) emit(e Event) {
	if c.onEvent != nil {
		c.onEvent(e)
		return
	}
	select {
	case c.events <- e:
	default:
	}
}

// readLine reads up to the next newline and gives what stands before it, of at most limit bytes.
func readLine(in *bufio.Reader, limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line)+len(part) > limit {
			return nil, ErrTooLong
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimRight(line, "\r\n"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}
