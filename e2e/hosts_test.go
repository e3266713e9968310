package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/internal/testtool"
)

// relay stands between a host and the key server, keeps what the host sends with its measurement, and may
// put something else in its place.
type relay struct {
	*httptest.Server
	mu      sync.Mutex
	paths   []string
	bodies  [][]byte
	replace []byte
}

func newRelay(t *testing.T, server string) *relay {
	t.Helper()
	target, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	r := new(relay)
	r.Server = httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		if !strings.HasSuffix(p.In.URL.Path, "/measurement") {
			return
		}
		body, err := io.ReadAll(io.LimitReader(p.In.Body, 1<<16))
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.paths, r.bodies = append(r.paths, p.In.URL.Path), append(r.bodies, body)
		if r.replace != nil {
			body = r.replace
		}
		p.Out.Body, p.Out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}})
	t.Cleanup(r.Close)
	return r
}

// TestReplay is a host that keeps the measurement of a good launch and shows it again: in a new session,
// whose machine has another firmware, and once more in the session that it was made for.
func TestReplay(t *testing.T) {
	s := theStage(t)
	r := newRelay(t, s.server.URL)
	s.wantBoot(t, s.launch(t, lab.Machine{Server: r.URL}))
	if len(r.bodies) != 1 {
		t.Fatalf("the good launch sent %d measurements", len(r.bodies))
	}
	good, path := r.bodies[0], r.paths[0]

	t.Run("measurement of another session", func(t *testing.T) {
		firmware := s.Path("replay.fd")
		if err := lab.FlipByte(s.image.Firmware(), firmware, 0x1000); err != nil {
			t.Fatal(err)
		}
		r.replace = good
		o := s.launch(t, lab.Machine{Server: r.URL, Firmware: firmware})
		r.replace = nil
		s.wantRefused(t, o, "release", "refused", "measurement does not match")
		if len(r.paths) != 2 || r.paths[1] == path {
			t.Errorf("the second launch asked %q: want another session", r.paths[1:])
		}
	})
	t.Run("second release of a session", func(t *testing.T) {
		answer, err := http.Post(s.server.URL+path, "application/json", bytes.NewReader(good))
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		if err != nil {
			t.Fatal(err)
		}
		if answer.StatusCode != http.StatusConflict || bytes.Contains(body, []byte("secret\"")) {
			t.Errorf("status %s: %s", answer.Status, body)
		}
		s.wantDecision(t, "release", "used", "")
	})
}

// runWithoutSecret starts the machine as launch does, but without an owner's session, and lets it run.
func (s *stage) runWithoutSecret(t *testing.T) lab.Outcome {
	t.Helper()
	dir, err := os.MkdirTemp("", "sealboot-e2e-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	control, console := filepath.Join(dir, "qmp"), filepath.Join(dir, "console")
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := s.RunQEMU(ctx, "-machine", "q35,confidential-guest-support=sev0", "-accel", "kvm", "-cpu", "EPYC-v4", "-m", "1G",
			"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-S",
			"-object", "sev-guest,id=sev0,policy=0x1,cbitpos=51,reduced-phys-bits=1",
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+s.image.Firmware(),
			"-drive", "if=none,id=disk0,format=qcow2,file="+s.image.Disk(),
			"-device", "virtio-blk-pci,drive=disk0,disable-legacy=on,iommu_platform=on,romfile=",
			"-qmp", "unix:"+control+",server=on,wait=off", "-serial", "file:"+console)
		ended <- err
	}()
	var client *qmp.Client
	for client == nil {
		c, err := qmp.Dial(ctx, "unix", control)
		if err == nil {
			client = c
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("qemu-sev ended: %v", err)
		case <-ctx.Done():
			t.Fatalf("QMP never came up: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
	defer client.Close()
	if err := client.Execute(ctx, "cont", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(console)
	if err != nil {
		t.Fatal(err)
	}
	return lab.Outcome{Console: string(text)}
}

// toRaw and toQCOW2 change a disk's container.
func (s *stage) toRaw(t *testing.T, from, to string) {
	t.Helper()
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-f", "qcow2", "-O", "raw", from, to)
}

func (s *stage) toQCOW2(t *testing.T, from string) string {
	t.Helper()
	testtool.Output(t, testtool.Program(t, "qemu-img"), "convert", "-f", "raw", "-O", "qcow2", from, from+".qcow2")
	return from + ".qcow2"
}

// diskUUID is the LUKS UUID in an image's record.
func diskUUID(t *testing.T, image lab.Image) string {
	t.Helper()
	data, err := os.ReadFile(image.Record())
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		Disk struct {
			UUID string `json:"uuid"`
		} `json:"disk"`
	}
	if err := json.Unmarshal(data, &record); err != nil {
		t.Fatal(err)
	}
	return record.Disk.UUID
}
