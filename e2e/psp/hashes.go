package psp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/ovmf"
)

// bootFileLimit bounds a kernel and an initrd.
const bootFileLimit = 1 << 30

// addKernelHashes measures kernel, initrd and command line, and puts the table of their hashes
// where the firmware looks for it (QEMU, kernel-hashes=on).
//
// With SEV, QEMU hands the kernel over as it is; without, it fills in the boot loader's fields of
// the kernel's setup header, and firmware that reads that would refuse the hash of the file. So the
// table in memory holds the hash of what the firmware gets, and what is measured, as on a SEV host,
// is the table for the file.
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
	handedOver, err := m.kernelHandedOver(ctx, firmware, spec.Kernel)
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

// unpatched is the file in which QEMU 10 and later hand the kernel over as it is too. Firmware that
// looks for files under that name (edk2 of 2025 and later) prefers it.
const unpatched = "etc/boot/kernel"

// kernelHandedOver gives the kernel as this firmware gets it from this QEMU.
func (m *machine) kernelHandedOver(ctx context.Context, firmware, kernel []byte) ([]byte, error) {
	device := fwCfg{control: m.control, memory: m.memory}
	files, err := device.files(ctx)
	if err != nil {
		return nil, err
	}
	if files[unpatched] && looksFor(firmware, path.Dir(unpatched)+"/") {
		return kernel, nil
	}
	var size [4]byte
	if err := device.read(ctx, fwCfgSetupSize, size[:]); err != nil {
		return nil, err
	}
	n := int64(binary.LittleEndian.Uint32(size[:]))
	if n > int64(len(kernel)) || n > fwCfgLimit {
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

// looksFor says whether a driver in the firmware holds a text.
func looksFor(firmware []byte, text string) bool {
	tree, err := ovmf.Unpack(firmware)
	if err != nil {
		return false
	}
	for _, volume := range tree.Volumes() {
		for _, file := range volume.Files {
			if bytes.Contains(file.Body, []byte(text)) {
				return true
			}
		}
	}
	return false
}
