package e2e

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sealboot/sealboot/e2e/lab"
	"github.com/sealboot/sealboot/internal/testtool"
)

// bootLimit bounds one launch: a boot takes some 6 seconds on an idle machine.
const bootLimit = 3 * time.Minute

// stage is what all the boots share: one image, registered with one key server.
type stage struct {
	*lab.Lab
	secret []byte // what the guest proves to have read
	image  lab.Image
	server *lab.Server
}

var workplace string // removed by TestMain

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "sealboot-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	workplace = dir
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "key server:", err)
			code = 1
		}
	}
	os.RemoveAll(dir)
	os.Exit(code)
}

var (
	prepare  sync.Once
	prepared error
	shared   stage
)

// theStage builds the programs and the image on first use.
func theStage(t *testing.T) *stage {
	t.Helper()
	testtool.Program(t, "qemu-system-x86_64")
	testtool.Program(t, "dpkg-deb")
	testtool.Program(t, "gcc")
	testtool.AmdSevFirmware(t)
	testtool.File(t, "usr/lib/grub/x86_64-efi/moddep.lst")
	testtool.Deb(t, "linux-image-*")
	prepare.Do(func() { prepared = shared.prepare(context.Background()) })
	if prepared != nil {
		t.Fatal(prepared)
	}
	return &shared
}

func (s *stage) prepare(ctx context.Context) error {
	s.Lab = &lab.Lab{Bin: filepath.Join(workplace, "bin"), Deps: testtool.Deps(), Dir: workplace, Log: io.Discard}
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", s.Bin+"/", "./cmd/...")
	build.Dir = testtool.Project()
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	s.secret = make([]byte, 32)
	rand.Read(s.secret)
	if err := lab.MakeRootFS(ctx, s.Deps, s.rootfs(), s.secret); err != nil {
		return err
	}
	var err error
	if s.image, _, err = s.Build(ctx, "image", s.rootfs(), "1G"); err != nil {
		return err
	}
	if err := s.Register(ctx, s.image); err != nil {
		return err
	}
	s.server, err = s.Serve(ctx)
	return err
}

func (s *stage) rootfs() string { return s.Path("rootfs.tar") }

// launch launches a machine with a deadline of its own. What is not set is the good launch.
func (s *stage) launch(t *testing.T, m lab.Machine) lab.Outcome {
	t.Helper()
	if m.Image == (lab.Image{}) {
		m.Image = s.image
	}
	if m.Server == "" {
		m.Server, m.ServerCA = s.server.URL, s.server.CA
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootLimit)
	defer cancel()
	o, err := s.Launch(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("exit code %d after %v, stopped: %q, launch said: %s", o.Code, o.Spent.Round(time.Millisecond), o.Stopped(), o.Stderr)
	return o
}

// wantBoot fails unless the guest proved that it runs from the encrypted root.
func (s *stage) wantBoot(t *testing.T, o lab.Outcome) {
	t.Helper()
	if want := lab.WantProof(o.Nonce, s.secret); o.Proof != want || o.Code != 0 {
		t.Errorf("proof %q, want %q; exit code %d; console:\n%s%s", o.Proof, want, o.Code, o.Console, o.Stderr)
	}
}

// wantRefused fails unless the key server gave nothing, for the reason that the owner's log must
// name with these words, and the guest never ran.
func (s *stage) wantRefused(t *testing.T, o lab.Outcome, event, class, cause string) {
	t.Helper()
	if o.Code != 3 {
		t.Errorf("exit code %d, want 3\n%s", o.Code, o.Stderr)
	}
	if o.Console != "" || o.Proof != "" {
		t.Errorf("the guest ran: proof %q, console:\n%s", o.Proof, o.Console)
	}
	s.wantDecision(t, event, class, cause)
}

// wantStopped fails unless the machine stopped itself with a line that holds these words, and no root file system was used.
func (s *stage) wantStopped(t *testing.T, o lab.Outcome, why string) {
	t.Helper()
	if o.Proof != "" {
		t.Errorf("the guest gave a proof: %s", o.Proof)
	}
	if o.Stopped() == "" || !contains(o.Stopped(), why) {
		t.Errorf("stopped with %q, want %q; exit code %d; console:\n%s%s", o.Stopped(), why, o.Code, o.Console, o.Stderr)
	}
}

// wantDecision checks the last row of the key server's audit log, whose chain the command verifies.
func (s *stage) wantDecision(t *testing.T, event, class, cause string) {
	t.Helper()
	rows, err := s.Audit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if last := rows[len(rows)-1]; last.Event != event || last.Class != class || !contains(last.Cause+": "+last.Reason, cause) {
		t.Errorf("the last decision is %+v, want event %q, class %q, cause with %q", last, event, class, cause)
	}
}
