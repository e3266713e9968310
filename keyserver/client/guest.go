package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp/seal"
	"github.com/sealboot/sealboot/keyserver/wire"
)

// Reporter asks the guest's firmware for a report over data, and gives it with the certificates that came with it, if any did.
type Reporter func(ctx context.Context, data [seal.ReportDataSize]byte) (report, certificates []byte, err error)

// retryAfter is how long a guest waits before it sends a report again that was not judged.
const retryAfter = 2 * time.Second

// Secrets goes the whole way of a running guest: challenge, one-time key, report, and the secret table out of the answer. While the
// server cannot judge yet, the same report is sent again, until the challenge is over by the clock that is given. The caller wipes the table.
func (c *Client) Secrets(ctx context.Context, image string, random io.Reader, now func() time.Time, report Reporter) (table []byte, err error) {
	challenge, err := c.Challenge(ctx, wire.ChallengeRequest{Image: image})
	if err != nil {
		return nil, err
	}
	key, err := seal.NewKey(random)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	data, err := seal.ReportData(challenge.Nonce, key.Public(), image)
	if err != nil {
		return nil, err
	}
	r := wire.ReportRequest{Image: image, PublicKey: key.Public()}
	if r.Report, r.Certificates, err = report(ctx, data); err != nil {
		return nil, fmt.Errorf("ask firmware for a report: %w", err)
	}
	for {
		sealed, err := c.Report(ctx, challenge.ID, r)
		if err == nil {
			return key.Open(sealed.Encapsulated, sealed.Secret, challenge.ID, image)
		}
		refused := (*Refused)(nil)
		if !errors.As(err, &refused) || !refused.Temporary() || !now().Add(retryAfter).Before(challenge.Expires) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(retryAfter):
		}
	}
}
