package keyserver

import (
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/keyserver/snp"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// newDecoy makes what stands in for an image that is not there, or that may not be asked for, so that its session and its
// refusal take the steps, and so the time, that a registered image's would. Its digest is random: nothing fits it, and what did
// would be refused all the same. Its secrets are sealed like an image's, and random too.
func newDecoy(key *Key, random io.Reader) (*found, error) {
	digest := make([]byte, len(sev.Digest{}))
	report := make([]byte, len(snp.Digest{}))
	for _, b := range [][]byte{digest, report} {
		if _, err := io.ReadFull(random, b); err != nil {
			return nil, fmt.Errorf("read random bytes: %w", err)
		}
	}
	m := &image{policy: DefaultPolicy(), record: &measure.Record{
		Version:  measure.RecordVersion,
		Firmware: measure.FirmwareFacts{SHA256: measure.Hash(digest), Size: 1},
		Digests: []measure.LaunchDigest{{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest},
			{Launch: measure.Launch{Mode: measure.SNP, VCPUs: 1, VCPUType: "EPYC-v4"}, Digest: report}},
		Disk:     measure.Disk{UUID: "00000000-0000-0000-0000-000000000000", HeaderPin: measure.Hash(digest)},
		MadeWith: map[string]string{},
	}}
	guest := snp.DefaultPolicy()
	m.policy.SNP = &guest
	m.record.Firmware.SecretArea.Base, m.record.Firmware.SecretArea.Size = 1, 3072
	var err error
	if m.recordB, err = m.record.Encode(); err != nil {
		return nil, err
	}
	if m.policyB, err = m.policy.Encode(); err != nil {
		return nil, err
	}
	v := new(vault)
	v.put(sev.DiskPassphrase, digest, time.Time{})
	defer v.wipe()
	return &found{image: m}, key.sealVault(m, v, random)
}
