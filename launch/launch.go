// Package launch starts a machine on a host with AMD SEV and gets it its secret. It is the host's
// side, and the host is not trusted: nothing here decides anything. It carries certificates and
// the measurement to the key server, and the session and the sealed secret back to QEMU.
//
// The QEMU is whatever it is given, driven by its command line and by QMP alone:
// query-sev-capabilities, query-sev, query-sev-launch-measure, sev-inject-launch-secret, cont
// (QEMU docs/system/i386/amd-memory-encryption, qapi/misc-i386.json). Whatever fails, the QEMU is ended, and
// the folder with the session's files is removed.
package launch

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"

	"github.com/sealboot/sealboot/keyserver/wire"
)

// Errors that callers tell apart.
var (
	// ErrRefused: the key server gave its answer, and it was no. The *client.Refused is wrapped too.
	ErrRefused = errors.New("refused")
	// ErrNoSEV: the QEMU or its host cannot do SEV.
	ErrNoSEV = errors.New("this QEMU offers no SEV")
	// ErrPlatform: QEMU said something about SEV that cannot be.
	ErrPlatform = errors.New("unusable answer from QEMU")
	// ErrRestart: the guest ran, and ended because it wants to start again, which takes another launch.
	ErrRestart = errors.New("the guest restarts")
	// ErrSpec: something in the Spec is wrong.
	ErrSpec = errors.New("wrong launch setting")
)

// Spec says what machine to start.
type Spec struct {
	Image      string // name under which the key server knows it
	QEMU       string // program: a path, or a name in PATH
	Firmware   string // OVMF with GRUB inside
	Disk       string
	DiskFormat string // qcow2 or raw
	Memory     string // as QEMU's -m: 1024M, 4G
	CPUs       int
	CPUModel   string // as QEMU's -cpu
	CertChain  []byte // PEK|OCA|CEK, if not the one that the platform keeps (whose CEK may lack AMD's signature)
	CA         []byte // ASK|ARK
	Serial     string // stdio, none, unix:PATH (a socket that QEMU listens on), or a file
	QMP        string // another QMP socket for the host's own use; "" for none
	Extra      []string
}

var memoryForm = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[1-9][0-9]{0,8}[MGT]$`) })

// Validate reports everything that is wrong.
func (s Spec) Validate() error {
	var problems []error
	complain := func(format string, args ...any) {
		problems = append(problems, fmt.Errorf("%w: %s", ErrSpec, fmt.Sprintf(format, args...)))
	}
	if !wire.ValidImage(s.Image) {
		complain("image %q is no name of 1 to 64 letters, digits, '.', '_', '-'", s.Image)
	}
	for _, required := range []struct{ what, value string }{
		{"QEMU program", s.QEMU}, {"firmware", s.Firmware}, {"disk", s.Disk}, {"CPU model", s.CPUModel}, {"serial console", s.Serial},
	} {
		if required.value == "" {
			complain("no %s given", required.what)
		}
	}
	if s.DiskFormat != "qcow2" && s.DiskFormat != "raw" {
		complain("disk format %q is neither qcow2 nor raw", s.DiskFormat)
	}
	if !memoryForm().MatchString(s.Memory) {
		complain("memory %q is not of the form 1024M or 4G", s.Memory)
	}
	if s.CPUs < 1 || s.CPUs > 512 {
		complain("%d processors", s.CPUs)
	}
	if len(s.CA) == 0 {
		complain("no certificates of AMD's (ASK and ARK) given")
	}
	if strings.ContainsAny(s.CPUModel, " \n") {
		complain("CPU model %q", s.CPUModel)
	}
	return errors.Join(problems...)
}
