package psp

import (
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// execute answers a client's command, or hands it to the real QEMU. Words of errors are QEMU's
// (target/i386/sev.c, 7.2 and later).
func (m *machine) execute(ctx context.Context, backend *qmp.Client, command string, args json.RawMessage) (any, error) {
	switch command {
	case "query-sev-capabilities":
		if err := noArguments(args); err != nil {
			return nil, err
		}
		return m.capabilities()
	case "cont":
		return m.resume(ctx, backend, args)
	case "query-sev", "query-sev-launch-measure", "sev-inject-launch-secret", "query-sev-attestation-report":
		if m.guest == nil {
			break // the real QEMU knows what to say
		}
		return m.executeSEV(command, args)
	}
	var result json.RawMessage
	if err := backend.Execute(ctx, command, args, &result); err != nil {
		return nil, unwrapError(err)
	}
	return result, nil
}

func (m *machine) executeSEV(command string, args json.RawMessage) (any, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch command {
	case "sev-inject-launch-secret":
		return nil, m.injectLocked(args)
	case "query-sev-attestation-report":
		// What a firmware says that does not have the command ATTESTATION.
		return nil, qmp.Errorf("SEV: Failed to query the attestation report length ret=-5 fw_err=%d (%v)",
			uint16(sev.StatusUnsupported), sev.StatusUnsupported)
	}
	if err := noArguments(args); err != nil {
		return nil, err
	}
	if command == "query-sev" {
		return m.infoLocked(), nil
	}
	if m.measurement == nil {
		return nil, qmp.Errorf("SEV launch measurement is not available")
	}
	return map[string]string{"data": base64.StdEncoding.EncodeToString(m.measurement)}, nil
}

// states are SevState's names, in the order of sev.State.
var states = []string{"uninit", "launch-update", "launch-secret", "running"}

func (m *machine) infoLocked() any {
	api := m.config.Platform.API
	info := map[string]any{
		"enabled": true, "api-major": api.Major, "api-minor": api.Minor, "build-id": api.Build,
		"policy": uint32(m.guest.Policy()), "state": states[m.guest.State()], "handle": m.handle,
	}
	if v := m.control.Version().QEMU; v.Major > 9 || v.Major == 9 && v.Minor >= 1 {
		info["sev-type"] = "sev" // SevInfo became a union in 9.1
	}
	return info
}

func (m *machine) capabilities() (any, error) {
	if !m.line.kvm {
		return nil, qmp.Errorf("KVM not enabled")
	}
	chain := m.config.Platform.Chain
	encode := base64.StdEncoding.EncodeToString
	chip := sha512.Sum512(chain.CEK.Encode()) // as long as AMD's chip ids
	return map[string]any{
		"pdh": encode(chain.PDH.Encode()), "cert-chain": encode(chain.EncodePlatform()),
		"cpu0-id": encode(chip[:]), "cbitpos": hostCBit, "reduced-phys-bits": reducedPhysBits,
	}, nil
}

func noArguments(args json.RawMessage) error {
	return readArguments(args, nil, nil)
}

// readArguments reads an object's members into required and optional strings and numbers.
func readArguments(args json.RawMessage, required, optional map[string]any) error {
	var members map[string]json.RawMessage
	if len(args) > 0 {
		if err := json.Unmarshal(args, &members); err != nil {
			return qmp.Errorf("Invalid parameter type, expected: object")
		}
	}
	for _, kind := range []struct {
		to     map[string]any
		needed bool
	}{{required, true}, {optional, false}} {
		for _, name := range slices.Sorted(maps.Keys(kind.to)) {
			raw, there := members[name]
			delete(members, name)
			if !there {
				if kind.needed {
					return qmp.Errorf("Parameter '%s' is missing", name)
				}
				continue
			}
			if err := readArgument(name, raw, kind.to[name]); err != nil {
				return err
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(members)) {
		return qmp.Errorf("Parameter '%s' is unexpected", name)
	}
	return nil
}

func readArgument(name string, raw json.RawMessage, to any) error {
	switch to := to.(type) {
	case *string:
		if !bytes.HasPrefix(raw, []byte(`"`)) || json.Unmarshal(raw, to) != nil {
			return qmp.Errorf("Invalid parameter type for '%s', expected: string", name)
		}
	case **uint64:
		v, err := strconv.ParseUint(string(raw), 10, 64)
		if signed, signedErr := strconv.ParseInt(string(raw), 10, 64); err != nil && signedErr == nil {
			v, err = uint64(signed), nil // QEMU takes negative numbers for compatibility
		}
		if err != nil {
			return qmp.Errorf("Parameter '%s' expects uint64", name)
		}
		*to = &v
	}
	return nil
}

// injectLocked does sev-inject-launch-secret.
func (m *machine) injectLocked(args json.RawMessage) error {
	var headerText, secretText string
	var gpa *uint64
	err := readArguments(args, map[string]any{"packet-header": &headerText, "secret": &secretText}, map[string]any{"gpa": &gpa})
	if err != nil {
		return err
	}
	if gpa == nil {
		area, ok := m.secretArea()
		if !ok {
			return qmp.Errorf("SEV: no secret area found in OVMF, gpa must be specified.")
		}
		base := uint64(area.Base)
		gpa = &base
	}
	if m.guest.State() != sev.StateLaunchSecret {
		return qmp.Errorf("SEV: Not in correct state. (LSECRET) %x", int(m.guest.State()))
	}
	header, err := decodeBase64(headerText)
	if err != nil || len(header) == 0 {
		return qmp.Errorf("SEV: Failed to decode sequence header")
	}
	secret, err := decodeBase64(secretText)
	if err != nil || len(secret) == 0 {
		return qmp.Errorf("SEV: Failed to decode data")
	}
	if _, err := m.memory.translate(*gpa, len(secret)); err != nil {
		return qmp.Errorf("SEV: Failed to calculate guest address: %v", err)
	}
	plain, err := m.guest.OpenSecret(header, secret)
	if err != nil {
		status := sev.StatusInvalidParam
		errors.As(err, &status)
		// The kernel gives EIO for every refusal of the firmware.
		return qmp.Errorf("SEV: failed to inject secret ret=-5 fw_error=%d '%v'", uint16(status), status)
	}
	defer clear(plain)
	return m.memory.write(*gpa, plain)
}

func (m *machine) secretArea() (ovmf.Area, bool) {
	if m.image == nil {
		return ovmf.Area{}, false
	}
	return m.image.SecretArea()
}
