package psp

import (
	"context"
	"fmt"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
	"github.com/sealboot/sealboot/sev"
)

// measure does LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA and LAUNCH_MEASURE on the machine as it
// stands before its first instruction.
func (m *machine) measure(ctx context.Context) error {
	if err := m.memory.locate(ctx, m.control, m.line.backend); err != nil {
		return err
	}
	firmware, err := m.memory.firmware(ctx, m.control)
	if err != nil {
		return err
	}
	spec := measure.Spec{Mode: measure.SEV, Firmware: firmware}
	if m.guest.Policy().Has(sev.ES) {
		spec.Mode, spec.VCPUs, spec.VCPUType = measure.SEVES, m.line.vcpus, m.line.cpu
	}
	if m.line.guest.kernelHashes && m.line.kernel != "" {
		if err := m.addKernelHashes(ctx, firmware, &spec); err != nil {
			return err
		}
	}
	sum, err := measure.Digest(spec)
	if err != nil {
		return err
	}
	if len(sum) != len(sev.Digest{}) {
		return fmt.Errorf("launch digest of %d bytes", len(sum))
	}
	measurement, err := m.guest.Measure(sev.Digest(sum), m.config.Random)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.measurement = measurement.Encode()
	if image, err := ovmf.Parse(firmware); err == nil {
		m.image = image // other firmware runs too, but takes secrets only where gpa says
	}
	return nil
}
