package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/e2e/load"
	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/keyserver/snp/fake"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// The key server under load: its own process, the load's on the same processors, over loopback.
const (
	workers   = 64   // enough that there is always one whose answer is not being written to the disk
	fleet     = 1600 // more than the server remembers chains of
	loadSpan  = 8 * time.Second
	manyTimes = 100_000
)

var benchAPI = sev.API{Major: 1, Minor: 55, Build: 21}

// keyServer measures whole pre-launch exchanges beside the public-key operations that they need, and beside tang.
func (b *bench) keyServer(ctx context.Context) (err error) {
	debug.SetGCPercent(400) // as the server's
	platforms, err := sev.NewPlatforms(rand.Reader, benchAPI, fleet)
	if err != nil {
		return err
	}
	digest := sev.Digest(sha256.Sum256([]byte("firmware")))
	if err := b.benchImage(ctx, digest); err != nil {
		return err
	}
	root, err := platforms[0].Chain.ARK.KeyDigest()
	if err != nil {
		return err
	}
	amd := fake.New(snp.Milan)
	if err := b.reportImage(ctx); err != nil {
		return err
	}
	server, err := b.Serve(ctx, "--trust-root", root.String(), "--trust-root", sev.RootDigest(sha256.Sum256(amd.ARK().RawSubjectPublicKeyInfo)).String(), "--rate", "1000000", "--image-rate", "1000000",
		"--log-level", "warn") // its log of what it grants would go through the load's process
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()

	rawKnown, rawVerified, err := rawOperations(ctx, platforms[0])
	if err != nil {
		return err
	}
	for _, part := range []struct {
		name string
		raw  measured
		list []*sev.Platform
	}{
		{"chain verified each time", rawVerified, platforms},
		{"chain known", rawKnown, platforms[:1]},
	} {
		one, err := exchanges(ctx, server.URL, digest, part.list)
		if err != nil {
			return err
		}
		if err := underLoad(ctx, "key server, "+part.name, server.PID(), part.raw, one); err != nil {
			return err
		}
	}
	if err := b.reports(ctx, server, amd); err != nil {
		return err
	}
	if err := b.tang(ctx); err != nil {
		return err
	}
	return b.flatMemory(ctx, server, platforms[0], digest)
}

// benchImage registers an image whose digest is known without a firmware.
func (b *bench) benchImage(ctx context.Context, digest sev.Digest) error {
	return b.loadImage(ctx, "load", measure.LaunchDigest{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest[:]})
}

func (b *bench) loadImage(ctx context.Context, name string, digest measure.LaunchDigest, args ...string) error {
	image := lab.Image{Name: name, Dir: b.Path(name)}
	if err := os.Mkdir(image.Dir, 0o700); err != nil {
		return err
	}
	facts := measure.Hash(sha256.Sum256([]byte(name)))
	record := &measure.Record{
		Version:  measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: facts, Size: 4 << 20, SecretArea: ovmf.Area{Base: 0x80c000, Size: 3072}},
		Digests:  []measure.LaunchDigest{digest},
		Disk:     measure.Disk{UUID: "00000000-0000-4000-8000-000000000001", HeaderPin: facts},
		MadeWith: map[string]string{"sealboot": "bench"},
	}
	text, err := record.Encode()
	if err != nil {
		return err
	}
	if err := os.WriteFile(image.Record(), text, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(image.Passphrase(), []byte(strings.Repeat("7", 64)), 0o600); err != nil {
		return err
	}
	return b.Register(ctx, image, args...)
}

// connections makes one for each worker.
func connections(ctx context.Context, url string) ([]*load.Conn, error) {
	list := make([]*load.Conn, workers)
	for i := range list {
		var err error
		if list[i], err = load.Dial(ctx, strings.TrimPrefix(url, "http://")); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// ask sends a message and reads its answer.
func ask[A any](c *load.Conn, path string, message []byte, want int, decode func(io.Reader) (A, error)) (A, error) {
	status, text, err := c.Post(path, wire.MediaType, message)
	if err == nil && status != want {
		err = fmt.Errorf("%s: status %d: %.200s", path, status, text)
	}
	if err != nil {
		return *new(A), err
	}
	return decode(bytes.NewReader(text))
}

// exchanges makes the platform's and the host's side: ask for a session, start and measure a guest with it, bring the
// measurement, open the secret. The server's part is not believed: the guest must get a secret table. What a host would
// have ready, its certificates in their message, is made before.
func exchanges(ctx context.Context, url string, digest sev.Digest, platforms []*sev.Platform) (load.Exchange, error) {
	connected, err := connections(ctx, url)
	if err != nil {
		return nil, err
	}
	encoded := make([][]byte, len(platforms))
	for i, p := range platforms {
		r := wire.SessionRequest{Image: "load", PDH: p.Chain.PDH.Encode(), CertChain: p.Chain.EncodePlatform(), CA: p.Chain.EncodeCA()}
		if encoded[i], err = r.Encode(); err != nil {
			return nil, err
		}
	}
	var next atomic.Uint64 // all workers take the platforms in one order, so that each comes back only after all others
	return func(ctx context.Context, worker int) error {
		i := int((next.Add(1) - 1) % uint64(len(platforms)))
		p, c := platforms[i], connected[worker]
		session, err := ask(c, "/v1/sessions", encoded[i], http.StatusCreated, wire.DecodeSession)
		if err != nil {
			return err
		}
		guest, err := p.LaunchStart(session.DHCert, session.Blob, sev.Policy(session.Policy))
		if err != nil {
			return err
		}
		m, err := guest.Measure(digest, rand.Reader)
		if err != nil {
			return err
		}
		message, err := wire.MeasurementRequest{Measurement: m.Encode(), APIMajor: p.API.Major, APIMinor: p.API.Minor, Build: p.API.Build}.Encode()
		if err != nil {
			return err
		}
		packet, err := ask(c, "/v1/sessions/"+session.ID+"/measurement", message, http.StatusOK, wire.DecodePacket)
		if err != nil {
			return err
		}
		table, err := guest.OpenSecret(packet.Header, packet.Secret)
		if err != nil {
			return err
		}
		_, err = sev.ParseSecretTable(table)
		return err
	}, nil
}

// rawOperations are the public-key operations of an exchange and nothing else, on all processors: both sides' key
// agreement (the load's processor time is the server's too), and the chain's signatures.
func rawOperations(ctx context.Context, p *sev.Platform) (known, verified measured, err error) {
	root, err := p.Chain.ARK.KeyDigest()
	if err != nil {
		return known, verified, err
	}
	roots := sev.RootSet{}.With("bench", root)
	agree := func(context.Context, int) error {
		_, start, err := sev.NewSession(p.Chain.PDH, sev.NoDebug|sev.NoKeySharing|sev.NoSend, rand.Reader)
		if err != nil {
			return err
		}
		_, err = p.LaunchStart(start.GODH[:], start.Session[:], sev.NoDebug|sev.NoKeySharing|sev.NoSend)
		return err
	}
	if known, err = raw(ctx, agree); err != nil {
		return known, verified, err
	}
	verified, err = raw(ctx, func(ctx context.Context, worker int) error {
		if _, err := p.Chain.Verify(roots); err != nil {
			return err
		}
		return agree(ctx, worker)
	})
	return known, verified, err
}

// flatMemory makes many exchanges and says what they cost in memory that stays. What grows at first is the database's page caches, 2 MiB
// for each connection: the table of sessions that have ended becomes larger than they are.
func (b *bench) flatMemory(ctx context.Context, server *lab.Server, p *sev.Platform, digest sev.Digest) error {
	one, err := exchanges(ctx, server.URL, digest, []*sev.Platform{p})
	if err != nil {
		return err
	}
	fmt.Printf("%-58s ", fmt.Sprintf("key server, resident memory over %d exchanges", manyTimes))
	const looks = 4
	for look := range looks + 1 {
		if look > 0 {
			left := make(chan struct{}, manyTimes/looks)
			for range cap(left) {
				left <- struct{}{}
			}
			close(left)
			_, err = load.Closed(ctx, workers, time.Hour, func(ctx context.Context, worker int) error {
				if _, more := <-left; !more {
					return errEnough
				}
				return one(ctx, worker)
			})
			if !errors.Is(err, errEnough) {
				return err
			}
		}
		resident, err := residentMemory(server.PID())
		if err != nil {
			return err
		}
		fmt.Printf(" %.1f", float64(resident)/(1<<20))
	}
	fmt.Println(" MiB")
	return nil
}

var errEnough = errors.New("enough")
