package storekey

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"
)

// Bounds of the talk with Vault.
const (
	vaultTimeout   = 15 * time.Second // of one request, the connection included
	maxVaultAnswer = 64 << 10
	maxVaultSaid   = 200
)

// VaultError is a no from Vault.
type VaultError struct {
	Path   string
	Status int
	Said   string // what Vault gave as the reason, shortened and printable
	err    error
}

func (e *VaultError) Error() string {
	text := fmt.Sprintf("vault answers %d to %s: %v", e.Status, e.Path, e.err)
	if e.Said != "" {
		text += fmt.Sprintf(" (%s)", e.Said)
	}
	switch {
	case e.Status == http.StatusForbidden:
		text += ": the token may have expired, or its policy lacks update on this path"
	case e.Status == http.StatusNotFound:
		text += ": is the transit engine mounted there?"
	case e.Status == http.StatusServiceUnavailable:
		text += ": vault is sealed or under maintenance, unseal it"
	case e.Status/100 == 3:
		text += ": it sends on to another server, give that one's address"
	}
	return text
}

// Unwrap gives ErrDenied, ErrWrapped, ErrUnavailable or ErrAnswer.
func (e *VaultError) Unwrap() error { return e.err }

// vault wraps by the transit engine of HashiCorp Vault or OpenBao, over its HTTP API
// (developer.hashicorp.com/vault/api-docs/secret/transit, "Encrypt data" and "Decrypt data").
type vault struct {
	reader
	address   string // scheme and host
	mount     string
	key       string
	tokenFile string // read for each request: an agent may renew it
	caFile    string
	namespace string
	timeout   time.Duration
}

func (v *vault) Wrap(ctx context.Context, plain []byte) ([]byte, error) {
	var answer struct {
		Data struct {
			Ciphertext string `json:"ciphertext"`
		} `json:"data"`
	}
	// A []byte is base64 in JSON, as the API wants it.
	request := struct {
		Plaintext []byte `json:"plaintext"`
	}{plain}
	if err := v.do(ctx, "encrypt", request, &answer); err != nil {
		return nil, err
	}
	wrapped := []byte(answer.Data.Ciphertext)
	if !isCiphertext(wrapped) {
		return nil, fmt.Errorf("vault: %w: no ciphertext", ErrAnswer)
	}
	return append(wrapped, '\n'), nil
}

func (v *vault) Unwrap(ctx context.Context, wrapped []byte) ([]byte, error) {
	wrapped = bytes.TrimSuffix(wrapped, []byte("\n"))
	if !isCiphertext(wrapped) {
		return nil, fmt.Errorf("%w: it does not begin with vault:v", ErrWrapped)
	}
	var answer struct {
		Data struct {
			Plaintext []byte `json:"plaintext"`
		} `json:"data"`
	}
	request := struct {
		Ciphertext string `json:"ciphertext"`
	}{string(wrapped)}
	if err := v.do(ctx, "decrypt", request, &answer); err != nil {
		clear(answer.Data.Plaintext)
		return nil, err
	}
	if len(answer.Data.Plaintext) == 0 {
		return nil, fmt.Errorf("vault: %w: no plaintext", ErrAnswer)
	}
	return answer.Data.Plaintext, nil
}

// isCiphertext says whether b looks like what transit makes, vault:v, the key's version, a colon, base64.
func isCiphertext(b []byte) bool {
	_, ok := oneLine(b)
	return ok && bytes.HasPrefix(b, []byte("vault:v"))
}

// do makes one request, and tries no second time: who starts the server starts it again.
func (v *vault) do(ctx context.Context, operation string, request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, v.timeout)
	defer cancel()
	token, err := v.token()
	if err != nil {
		return err
	}
	client, err := v.client()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	body, err := json.Marshal(request)
	defer clear(body)
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	path := "/v1/" + v.mount + "/" + operation + "/" + v.key
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, v.address+path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("vault: %w", err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Vault-Token", token)
	r.Header.Set("X-Vault-Request", "true") // an agent may demand it against forged requests
	if v.namespace != "" {
		r.Header.Set("X-Vault-Namespace", v.namespace)
	}
	reply, err := client.Do(r)
	if err != nil {
		return fmt.Errorf("vault: %w: %w", ErrUnavailable, err)
	}
	defer reply.Body.Close()
	text, err := bounded(reply.Body, "the answer", maxVaultAnswer)
	defer clear(text)
	if err != nil && reply.StatusCode == http.StatusOK {
		return fmt.Errorf("vault: %w: %w", ErrAnswer, err)
	}
	if reply.StatusCode != http.StatusOK {
		return &VaultError{Path: path, Status: reply.StatusCode, Said: vaultSaid(text), err: vaultClass(reply.StatusCode)}
	}
	// Of the decoder's errors some repeat a character of the answer, which may be the key's.
	if err := json.Unmarshal(text, answer); err != nil {
		return fmt.Errorf("vault: %w: not JSON of the expected form", ErrAnswer)
	}
	return nil
}

func (v *vault) token() (string, error) {
	text, err := v.private(v.tokenFile, maxToken)
	defer clear(text)
	if err != nil {
		return "", fmt.Errorf("read vault token: %w", err)
	}
	token, ok := oneLine(text)
	if !ok {
		return "", fmt.Errorf("read vault token %s: it is not one line of visible characters", v.tokenFile)
	}
	return token, nil
}

// client follows no redirect: the token would go along.
func (v *vault) client() (*http.Client, error) {
	security := &tls.Config{MinVersion: tls.VersionTLS12}
	if v.caFile != "" {
		pem, err := public(v.caFile, maxCA)
		if err != nil {
			return nil, fmt.Errorf("read vault's CA: %w", err)
		}
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read vault's CA %s: no certificate in it", v.caFile)
		}
	}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{ // no proxy
			DialContext:            (&net.Dialer{Timeout: v.timeout}).DialContext,
			TLSClientConfig:        security,
			TLSHandshakeTimeout:    v.timeout,
			ResponseHeaderTimeout:  v.timeout,
			MaxResponseHeaderBytes: maxVaultAnswer,
			DisableKeepAlives:      true,
			DisableCompression:     true,
		},
	}, nil
}

// vaultClass sorts status codes (developer.hashicorp.com/vault/api-docs, "HTTP status codes").
func vaultClass(status int) error {
	switch status {
	case http.StatusBadRequest:
		return ErrWrapped
	case http.StatusUnauthorized, http.StatusForbidden:
		return ErrDenied
	case http.StatusPreconditionFailed, http.StatusTooManyRequests, 472, 473, // standbys that may not answer
		http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return ErrUnavailable
	}
	return ErrAnswer
}

// vaultSaid gives the reasons of {"errors": [...]}, for a log.
func vaultSaid(text []byte) string {
	var problem struct {
		Errors []string `json:"errors"`
	}
	if json.Unmarshal(text, &problem) != nil {
		return ""
	}
	said := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return ' '
		}
		return r
	}, strings.Join(problem.Errors, "; "))
	said = strings.Join(strings.Fields(said), " ")
	return said[:min(len(said), maxVaultSaid)]
}
