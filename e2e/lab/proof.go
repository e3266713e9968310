package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// rootDevice is the name of the device that the guest's root must be mounted from: the one
// that the agent makes.
const rootDevice = "sealboot-root"

// WantProof computes what a guest must answer to the nonce: see guest-init.sh.
func WantProof(nonce string, secret []byte) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s ", nonce, rootDevice)
	h.Write(secret)
	return hex.EncodeToString(h.Sum(nil))
}

// askProof waits for the guest on its second serial port, a socket, sends the nonce and
// returns the answer.
func askProof(ctx context.Context, socket, nonce string) (string, error) {
	var conn net.Conn
	for conn == nil {
		c, err := new(net.Dialer).DialContext(ctx, "unix", socket)
		if err == nil {
			conn = c
			break
		}
		select {
		case <-ctx.Done():
			return "", errors.New("the guest's serial port never came up")
		case <-time.After(20 * time.Millisecond):
		}
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	defer conn.Close()
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if strings.HasSuffix(line, "READY") {
			if _, err := fmt.Fprintf(conn, "%s\n", nonce); err != nil {
				return "", err
			}
		} else if _, proof, ok := strings.Cut(line, "PROOF "); ok {
			return proof, nil
		}
	}
	return "", errors.New("the guest gave no proof")
}
