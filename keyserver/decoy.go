package keyserver

import (
	"fmt"
	"io"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// decoy stands in for an image that is not there, so that its session and its refusal take the steps, and
// so the time, that a registered image's would. Its digest is random: nothing fits it, and what did would be refused
// all the same, for it has no version and no secret.
func newDecoy(random io.Reader) (*image, error) {
	digest := make([]byte, len(sev.Digest{}))
	if _, err := io.ReadFull(random, digest); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	record := measure.Record{
		Version:  measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: measure.Hash(digest), Size: 1},
		Digests:  []measure.LaunchDigest{{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest}},
		Disk:     measure.Disk{UUID: "00000000-0000-0000-0000-000000000000", HeaderPin: measure.Hash(digest)},
		MadeWith: map[string]string{},
	}
	record.Firmware.SecretArea.Base, record.Firmware.SecretArea.Size = 1, 1
	m := new(image)
	var err error
	if m.recordB, err = record.Encode(); err != nil {
		return nil, err
	}
	if m.policyB, err = DefaultPolicy().encode(); err != nil {
		return nil, err
	}
	return m, m.parse()
}

// again reads the decoy anew, as an image is read from the store.
func (m *image) again() (*image, error) {
	n := &image{recordB: m.recordB, policyB: m.policyB}
	return n, n.parse()
}
