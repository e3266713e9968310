package psp

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/bits"
	"os"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
)

// bootFileLimit bounds a kernel and an initrd.
const bootFileLimit = 1 << 30

// addKernelHashes measures kernel, initrd and command line, and puts the table of their hashes
// where the firmware looks for it (QEMU, kernel-hashes=on).
//
// With SEV, QEMU hands the kernel over as it is; without, it fills in the boot loader's fields of
// the kernel's setup header, and the firmware would refuse the hash of the file. So the table in
// memory holds the hash of what this QEMU hands over, and what is measured, as on a SEV host, is
// the table for the file.
func (m *machine) addKernelHashes(ctx context.Context, firmware []byte, spec *measure.Spec) error {
	image, err := ovmf.Parse(firmware)
	if err != nil {
		return fmt.Errorf("SEV: kernel specified but guest firmware has no hashes table GUID")
	}
	area, ok := image.HashesArea()
	if !ok {
		return fmt.Errorf("SEV: kernel specified but guest firmware has no hashes table GUID")
	}
	spec.HashKernel, spec.Append, spec.HasInitrd = true, m.line.append, m.line.initrd != ""
	if spec.Kernel, err = readBootFile(m.line.kernel); err != nil {
		return err
	}
	if spec.HasInitrd {
		if spec.Initrd, err = readBootFile(m.line.initrd); err != nil {
			return err
		}
	}
	handedOver, err := m.setupHandedOver(ctx, spec.Kernel)
	if err != nil {
		return fmt.Errorf("read what the guest gets as kernel: %w", err)
	}
	table := measure.KernelHashes(handedOver, spec.Initrd, spec.Append)
	if uint64(len(table)) > uint64(area.Size) {
		return fmt.Errorf("SEV: guest firmware hashes table area is invalid (base=0x%x size=0x%x)", area.Base, area.Size)
	}
	return m.memory.write(uint64(area.Base), table)
}

func readBootFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, bootFileLimit+1))
	if err != nil {
		return nil, err
	}
	if len(data) > bootFileLimit {
		return nil, fmt.Errorf("%s: more than %d bytes", name, bootFileLimit)
	}
	return data, nil
}

// setupHandedOver gives the kernel with the setup part that QEMU's firmware configuration device holds.
func (m *machine) setupHandedOver(ctx context.Context, kernel []byte) ([]byte, error) {
	device := fwCfg{control: m.control, memory: m.memory}
	var size [4]byte
	if err := device.read(ctx, fwCfgSetupSize, size[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(size[:]))
	if n > int64(len(kernel)) || n > fwCfgWindow {
		return nil, fmt.Errorf("a setup part of %d bytes", n)
	}
	setup := make([]byte, n)
	if n > 0 {
		if err := device.read(ctx, fwCfgSetupData, setup); err != nil {
			return nil, err
		}
	}
	return append(setup, kernel[n:]...), nil
}

// Keys, ports and bits of the firmware configuration device (QEMU docs/specs/fw_cfg.rst;
// keys: include/standard-headers/linux/qemu_fw_cfg.h).
const (
	fwCfgSetupSize = 0x17
	fwCfgSetupData = 0x18

	fwCfgPort    = 0x514 // the DMA address, big-endian, its upper half first
	fwCfgRead    = 1 << 1
	fwCfgSelect  = 1 << 3
	fwCfgScratch = 0x100000 // guest memory that nobody uses before the first instruction
	fwCfgWindow  = 0x100000 // how much of it
)

// fwCfg reads QEMU's firmware configuration device from outside the guest: its ports by the
// monitor, its DMA by the guest's memory.
type fwCfg struct {
	control *qmp.Client
	memory  *guestMemory
}

func (f fwCfg) read(ctx context.Context, key uint16, to []byte) error {
	const head = 16
	request := make([]byte, head+len(to))
	binary.BigEndian.PutUint32(request, uint32(key)<<16|fwCfgSelect|fwCfgRead)
	binary.BigEndian.PutUint32(request[4:], uint32(len(to)))
	binary.BigEndian.PutUint64(request[8:], fwCfgScratch+head)
	if err := f.memory.write(fwCfgScratch, request); err != nil {
		return err
	}
	for _, half := range []struct{ port, value uint32 }{{fwCfgPort, 0}, {fwCfgPort + 4, bits.ReverseBytes32(fwCfgScratch)}} {
		if _, err := monitorText(ctx, f.control, fmt.Sprintf("o /w %#x %#x", half.port, half.value)); err != nil {
			return err
		}
	}
	if err := f.memory.read(fwCfgScratch, request); err != nil {
		return err
	}
	if status := binary.BigEndian.Uint32(request); status != 0 {
		return fmt.Errorf("firmware configuration device: status %#x", status)
	}
	copy(to, request[head:])
	clear(request)
	return f.memory.write(fwCfgScratch, request)
}
