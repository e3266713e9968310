package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/e2e/load"
	"github.com/sealboot/sealboot/keyserver/client"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// The key server under load: its own process, the load's on the same processors, over loopback.
const (
	workers   = 24
	fleet     = 1100 // more than the server remembers chains of
	loadSpan  = 8 * time.Second
	manyTimes = 100_000
)

var benchAPI = sev.API{Major: 1, Minor: 55, Build: 21}

// keyServer measures whole pre-launch exchanges beside the public-key operations that they need, and beside tang.
func (b *bench) keyServer(ctx context.Context) (err error) {
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
	server, err := b.Serve(ctx, "--trust-root", root.String(), "--rate", "1000000", "--image-rate", "1000000")
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
		raw  load.Result
		pick func(worker, n int) *sev.Platform
	}{
		{"chain verified each time", rawVerified, func(worker, n int) *sev.Platform { return platforms[(worker+n*workers)%fleet] }},
		{"chain known", rawKnown, func(worker, _ int) *sev.Platform { return platforms[0] }},
	} {
		one, err := exchanges(server.URL, digest, part.pick)
		if err != nil {
			return err
		}
		most, err := load.Closed(ctx, workers, loadSpan, one)
		if err != nil {
			return err
		}
		half, err := load.Open(ctx, workers, most.Rate()/2, loadSpan, one)
		if err != nil {
			return err
		}
		reportLoad("key server, "+part.name, most, half, fmt.Sprintf("(%.2f of the raw operations' %.0f/s)", most.Rate()/part.raw.Rate(), part.raw.Rate()))
	}
	if err := b.flatMemory(ctx, server, platforms[0], digest); err != nil {
		return err
	}
	return b.tang(ctx)
}

func reportLoad(what string, most, half load.Result, note string) {
	fmt.Printf("%-58s %8.0f /s  at half load: p50 %.1f ms, p99 %.1f ms  %s\n", what, most.Rate(),
		half.P50.Seconds()*1000, half.P99.Seconds()*1000, note)
}

// benchImage registers an image whose digest is known without a firmware.
func (b *bench) benchImage(ctx context.Context, digest sev.Digest) error {
	image := lab.Image{Name: "load", Dir: b.Path("load")}
	if err := os.Mkdir(image.Dir, 0o700); err != nil {
		return err
	}
	record := &measure.Record{
		Version:  measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: measure.Hash(digest), Size: 4 << 20, SecretArea: ovmf.Area{Base: 0x80c000, Size: 3072}},
		Digests:  []measure.LaunchDigest{{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest[:]}},
		Disk:     measure.Disk{UUID: "00000000-0000-4000-8000-000000000001", HeaderPin: measure.Hash(digest)},
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
	return b.Register(ctx, image)
}

// exchanges makes the platform's and the host's side: ask for a session, start and measure a guest with it, bring the
// measurement, open the secret. The server's part is not believed: the guest must get a secret table.
func exchanges(url string, digest sev.Digest, pick func(worker, n int) *sev.Platform) (load.Exchange, error) {
	clients := make([]*client.Client, workers)
	requests := make([]int, workers)
	for i := range clients {
		var err error
		transport := &http.Transport{MaxIdleConnsPerHost: 1, DisableCompression: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}}
		if clients[i], err = client.New(url, &http.Client{Transport: transport, Timeout: 30 * time.Second}); err != nil {
			return nil, err
		}
	}
	encoded := map[*sev.Platform]wire.SessionRequest{}
	for worker := range workers {
		for n := range fleet {
			p := pick(worker, n)
			if _, there := encoded[p]; !there {
				encoded[p] = wire.SessionRequest{Image: "load", PDH: p.Chain.PDH.Encode(), CertChain: p.Chain.EncodePlatform(), CA: p.Chain.EncodeCA()}
			}
		}
	}
	return func(ctx context.Context, worker int) error {
		p := pick(worker, requests[worker])
		requests[worker]++
		session, err := clients[worker].Session(ctx, encoded[p])
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
		packet, err := clients[worker].Measurement(ctx, session.ID, wire.MeasurementRequest{
			Measurement: m.Encode(), APIMajor: p.API.Major, APIMinor: p.API.Minor, Build: p.API.Build})
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
func rawOperations(ctx context.Context, p *sev.Platform) (known, verified load.Result, err error) {
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
	if known, err = load.Closed(ctx, runtime.NumCPU(), loadSpan/2, agree); err != nil {
		return known, verified, err
	}
	verified, err = load.Closed(ctx, runtime.NumCPU(), loadSpan/2, func(ctx context.Context, worker int) error {
		if _, err := p.Chain.Verify(roots); err != nil {
			return err
		}
		return agree(ctx, worker)
	})
	return known, verified, err
}

// flatMemory makes many exchanges and says what they cost in memory that stays.
func (b *bench) flatMemory(ctx context.Context, server *lab.Server, p *sev.Platform, digest sev.Digest) error {
	one, err := exchanges(server.URL, digest, func(int, int) *sev.Platform { return p })
	if err != nil {
		return err
	}
	left := make(chan struct{}, manyTimes)
	for range manyTimes {
		left <- struct{}{}
	}
	close(left)
	before, err := residentMemory(server.PID())
	if err != nil {
		return err
	}
	_, err = load.Closed(ctx, workers, time.Hour, func(ctx context.Context, worker int) error {
		if _, more := <-left; !more {
			return errEnough
		}
		return one(ctx, worker)
	})
	if !errors.Is(err, errEnough) {
		return err
	}
	after, err := residentMemory(server.PID())
	if err != nil {
		return err
	}
	fmt.Printf("%-58s %8.1f MiB before, %.1f MiB after\n", fmt.Sprintf("key server, resident memory over %d exchanges", manyTimes),
		float64(before)/(1<<20), float64(after)/(1<<20))
	return nil
}

var errEnough = errors.New("enough")

// residentMemory is what a process has in memory, in bytes (proc(5), statm).
func residentMemory(pid int) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "statm"))
	if err != nil {
		return 0, err
	}
	var size, resident int64
	if _, err := fmt.Sscan(string(text), &size, &resident); err != nil {
		return 0, err
	}
	return resident * int64(os.Getpagesize()), nil
}
