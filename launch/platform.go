package launch

import (
	"context"
	"encoding/base64"
	"fmt"

	"github.com/sealboot/sealboot/internal/qmp"
)

// platform is what a host says of its secure processor.
type platform struct {
	pdh, certChain    []byte
	cBit, reducedBits int
}

// capabilities asks a QEMU (query-sev-capabilities).
func capabilities(ctx context.Context, q *qmp.Client) (*platform, error) {
	var answer struct {
		PDH         string `json:"pdh"`
		CertChain   string `json:"cert-chain"`
		CBit        int    `json:"cbitpos"`
		ReducedBits int    `json:"reduced-phys-bits"`
	}
	if err := q.Execute(ctx, "query-sev-capabilities", nil, &answer); err != nil {
		if isRefusal(err) {
			return nil, fmt.Errorf("%w: %w (for tests without the hardware there is qemu-sev)", ErrNoSEV, err)
		}
		return nil, err
	}
	pdh, err := decode("pdh", answer.PDH)
	if err != nil {
		return nil, err
	}
	chain, err := decode("cert-chain", answer.CertChain)
	if err != nil {
		return nil, err
	}
	// The C-bit is a bit of a 64-bit page table entry, above the bits of a page.
	if answer.CBit < 12 || answer.CBit > 63 || answer.ReducedBits < 0 || answer.ReducedBits > 63 {
		return nil, fmt.Errorf("%w: C-bit %d, %d bits fewer in addresses", ErrPlatform, answer.CBit, answer.ReducedBits)
	}
	return &platform{pdh, chain, answer.CBit, answer.ReducedBits}, nil
}

// measurement is the launched guest's, with what it was computed over.
type measurement struct {
	data                []byte
	major, minor, build uint8
}

// launchMeasure asks for the measurement, and for the numbers that are counted into it.
func launchMeasure(ctx context.Context, q *qmp.Client, policy uint32) (measurement, error) {
	var state struct {
		Enabled bool   `json:"enabled"`
		Major   uint8  `json:"api-major"`
		Minor   uint8  `json:"api-minor"`
		Build   uint8  `json:"build-id"`
		Policy  uint32 `json:"policy"`
		State   string `json:"state"`
	}
	if err := q.Execute(ctx, "query-sev", nil, &state); err != nil {
		return measurement{}, err
	}
	if !state.Enabled || state.Policy != policy {
		return measurement{}, fmt.Errorf("%w: SEV enabled %v with policy %#x, asked for %#x", ErrPlatform, state.Enabled, state.Policy, policy)
	}
	var answer struct {
		Data string `json:"data"`
	}
	if err := q.Execute(ctx, "query-sev-launch-measure", nil, &answer); err != nil {
		return measurement{}, err
	}
	data, err := decode("launch measurement", answer.Data)
	if err != nil {
		return measurement{}, err
	}
	return measurement{data, state.Major, state.Minor, state.Build}, nil
}

func decode(what, text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		return nil, fmt.Errorf("%w: %s is not base64", ErrPlatform, what)
	}
	return b, nil
}
