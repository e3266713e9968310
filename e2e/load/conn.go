package load

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"time"
)

// Conn is one connection to an HTTP/1.1 server, for one worker. net/http's client starts goroutines for each connection, whose changes
// back and forth cost as much processor time as a small server's answer: here the worker writes and reads by itself. It makes no new
// connection when the server closes this one: that is an error.
type Conn struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body bytes.Buffer
	host string
}

// Dial makes a connection to HOST:PORT.
func Dial(ctx context.Context, address string) (*Conn, error) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	return &Conn{conn: c, in: bufio.NewReader(c), host: address}, nil
}

// Close ends the connection.
func (c *Conn) Close() error { return c.conn.Close() }

// answerTime is how long an answer may take, and the most that one may have.
const (
	answerTime = 30 * time.Second
	mostAnswer = 1 << 20
)

// Post sends a body and reads the answer, whose text stays until the next Post.
func (c *Conn) Post(path, media string, body []byte) (status int, text []byte, err error) {
	c.out = append(c.out[:0], "POST "...)
	c.out = append(c.out, path...)
	c.out = append(c.out, " HTTP/1.1\r\nHost: "...)
	c.out = append(c.out, c.host...)
	c.out = append(c.out, "\r\nContent-Type: "...)
	c.out = append(c.out, media...)
	c.out = append(c.out, "\r\nContent-Length: "...)
	c.out = strconv.AppendInt(c.out, int64(len(body)), 10)
	c.out = append(append(c.out, "\r\n\r\n"...), body...)
	if err := c.conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	answer, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	c.body.Reset()
	if _, err := c.body.ReadFrom(io.LimitReader(answer.Body, mostAnswer)); err != nil {
		return 0, nil, err
	}
	if answer.Close {
		return 0, nil, fmt.Errorf("server ends the connection after %s", answer.Status)
	}
	return answer.StatusCode, c.body.Bytes(), nil
}
