package main

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"

	"github.com/sealboot/sealboot/e2e/load"
)

// tangProgram is where Debian's and Ubuntu's package tang-common has it.
const tangProgram = "/usr/libexec/tangd"

// tang measures the recovery exchange of tang, the key server that network-bound disk encryption uses: one key
// agreement on P-521 for whoever asks, without state, evidence or audit. tangd serves one connection, as inetd starts it; here each
// worker keeps its connection, which is the fastest way to use it.
func (b *bench) tang(ctx context.Context) error {
	if _, err := os.Stat(tangProgram); err != nil {
		fmt.Println("tang is not installed (package tang): no comparison")
		return nil
	}
	keys := b.Path("tang")
	if err := os.Mkdir(keys, 0o700); err != nil {
		return err
	}
	if out, err := exec.CommandContext(ctx, tangProgram+"-keygen", keys).CombinedOutput(); err != nil {
		return fmt.Errorf("tangd-keygen: %w\n%s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	go serveTang(ctx, listener, keys)
	defer listener.Close()

	url := "http://" + listener.Addr().String()
	path, err := tangKey(ctx, url)
	if err != nil {
		return fmt.Errorf("tang's keys: %w", err)
	}
	one, err := tangExchange(ctx, url, path)
	if err != nil {
		return err
	}
	return underLoad(ctx, "tang, recovery exchange (P-521, no evidence, no audit)", 0, measured{}, one)
}

// serveTang starts a tangd for each connection, as inetd does.
func serveTang(ctx context.Context, listener net.Listener, keys string) {
	for {
		c, err := listener.Accept()
		if err != nil {
			return
		}
		f, err := c.(*net.TCPConn).File()
		c.Close()
		if err != nil {
			continue
		}
		cmd := exec.CommandContext(ctx, tangProgram, keys)
		cmd.Stdin, cmd.Stdout = f, f
		if cmd.Start() == nil {
			go cmd.Wait()
		}
		f.Close()
	}
}

type jwk struct {
	Alg    string   `json:"alg"`
	Crv    string   `json:"crv"`
	Kty    string   `json:"kty"`
	X      string   `json:"x"`
	Y      string   `json:"y"`
	KeyOps []string `json:"key_ops,omitempty"`
}

// tangKey gives the path of the recovery request: the thumbprint (RFC 7638) of the exchange key that is advertised.
func tangKey(ctx context.Context, url string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/adv", nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	var signed struct {
		Payload string `json:"payload"`
	}
	if err := json.NewDecoder(io.LimitReader(answer.Body, 1<<16)).Decode(&signed); err != nil {
		return "", err
	}
	payload, err := base64.RawURLEncoding.DecodeString(signed.Payload)
	if err != nil {
		return "", err
	}
	var set struct {
		Keys []jwk `json:"keys"`
	}
	if err := json.Unmarshal(payload, &set); err != nil {
		return "", err
	}
	for _, k := range set.Keys {
		if k.Alg == "ECMR" {
			digest := sha256.Sum256(fmt.Appendf(nil, `{"crv":%q,"kty":%q,"x":%q,"y":%q}`, k.Crv, k.Kty, k.X, k.Y))
			return "/rec/" + base64.RawURLEncoding.EncodeToString(digest[:]), nil
		}
	}
	return "", errors.New("no key for recovery is advertised")
}

func tangExchange(ctx context.Context, url, path string) (load.Exchange, error) {
	key, err := ecdh.P521().GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	point := key.PublicKey().Bytes()[1:]
	half := len(point) / 2
	body, err := json.Marshal(jwk{Alg: "ECMR", Crv: "P-521", Kty: "EC",
		X: base64.RawURLEncoding.EncodeToString(point[:half]), Y: base64.RawURLEncoding.EncodeToString(point[half:])})
	if err != nil {
		return nil, err
	}
	connected, err := connections(ctx, url)
	if err != nil {
		return nil, err
	}
	return func(_ context.Context, worker int) error {
		status, text, err := connected[worker].Post(path, "application/jwk+json", body)
		if err == nil && (status != http.StatusOK || !bytes.Contains(text, []byte(`"P-521"`))) {
			err = fmt.Errorf("tang: status %d: %.200s", status, text)
		}
		return err
	}, nil
}
