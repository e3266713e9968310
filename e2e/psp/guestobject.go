package psp

import (
	"encoding/base64"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/sealboot/sealboot/sev"
)

// What the stand-in calls the host's hardware.
const (
	hostCBit        = 51 // where EPYC processors since Milan have it
	reducedPhysBits = 1
	defaultPolicy   = sev.NoDebug // QEMU's, target/i386/sev.c
	fileLimit       = 64 << 10    // of a certificate or session file, base64
)

// guestObject is QEMU's sev-guest object (qapi/qom.json, SevGuestProperties).
type guestObject struct {
	id              string
	device          string
	policy          sev.Policy
	handle          uint32
	cbitpos         uint32
	reducedPhysBits uint32
	dhCertFile      string
	sessionFile     string
	kernelHashes    bool
}

func parseGuestObject(p properties) (*guestObject, error) {
	g := &guestObject{device: "/dev/sev", policy: defaultPolicy}
	for _, q := range p {
		var err error
		var policy uint32
		switch q.key {
		case "qom-type":
		case "id":
			g.id = q.value
		case "sev-device":
			g.device = q.value
		case "policy":
			policy, err = parseUint32(q)
			g.policy = sev.Policy(policy)
		case "handle":
			g.handle, err = parseUint32(q)
		case "cbitpos":
			g.cbitpos, err = parseUint32(q)
		case "reduced-phys-bits":
			g.reducedPhysBits, err = parseUint32(q)
		case "dh-cert-file":
			g.dhCertFile = q.value
		case "session-file":
			g.sessionFile = q.value
		case "kernel-hashes":
			g.kernelHashes, err = parseBool(q)
		case "legacy-vm-type":
			_, err = parseOnOffAuto(q)
		default:
			err = fmt.Errorf("Property 'sev-guest.%s' not found", q.key)
		}
		if err != nil {
			return nil, err
		}
	}
	if g.id == "" {
		return nil, fmt.Errorf("Parameter 'id' is missing")
	}
	return g, nil
}

func parseUint32(q property) (uint32, error) {
	v, err := strconv.ParseUint(q.value, 0, 32)
	if err != nil {
		return 0, fmt.Errorf("Parameter '%s' expects uint32", q.key)
	}
	return uint32(v), nil
}

func parseBool(q property) (bool, error) {
	switch q.value {
	case "on", "yes", "true", "y":
		return true, nil
	case "off", "no", "false", "n":
		return false, nil
	}
	return false, fmt.Errorf("Parameter '%s' expects 'on' or 'off'", q.key)
}

func parseOnOffAuto(q property) (string, error) {
	if q.value != "auto" {
		if _, err := parseBool(q); err != nil {
			return "", err
		}
	}
	return q.value, nil
}

// check does what sev_kvm_init does before the launch starts.
func (g *guestObject) check() error {
	if g.cbitpos != hostCBit {
		return fmt.Errorf("sev_kvm_init: cbitpos check failed, host '%d' requested '%d'", hostCBit, g.cbitpos)
	}
	if g.reducedPhysBits < 1 || g.reducedPhysBits > 63 {
		return fmt.Errorf("sev_kvm_init: reduced_phys_bits check failed, it should be in the range of 1 to 63, requested '%d'", g.reducedPhysBits)
	}
	return nil
}

// launchStart does LAUNCH_START with the files that the object names.
func (g *guestObject) launchStart(platform *sev.Platform, random io.Reader) (*sev.Guest, error) {
	if g.sessionFile == "" && g.dhCertFile == "" {
		return platform.LaunchStartUnowned(g.policy, random)
	}
	var godh, session []byte
	for _, file := range []struct {
		name string
		to   *[]byte
	}{{g.sessionFile, &session}, {g.dhCertFile, &godh}} {
		if file.name == "" {
			return nil, fmt.Errorf("LAUNCH_START: %w", sev.StatusInvalidLength)
		}
		var err error
		if *file.to, err = readBase64(file.name); err != nil {
			return nil, err
		}
	}
	return platform.LaunchStart(godh, session, g.policy)
}

func readBase64(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("SEV: Failed to read the file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, fileLimit+1))
	if err != nil {
		return nil, fmt.Errorf("SEV: Failed to read the file: %w", err)
	}
	if len(text) > fileLimit {
		return nil, fmt.Errorf("SEV: Failed to read the file: %s: more than %d bytes", name, fileLimit)
	}
	return decodeBase64(string(text))
}

// decodeBase64 leaves out line ends, as QEMU does.
func decodeBase64(text string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
}
