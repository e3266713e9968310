package psp

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"

	"github.com/sealboot/sealboot/internal/qmp"
)

// Keys, ports and bits of the firmware configuration device (QEMU docs/specs/fw_cfg.rst;
// keys: include/standard-headers/linux/qemu_fw_cfg.h).
const (
	fwCfgSetupSize = 0x17
	fwCfgSetupData = 0x18
	fwCfgFiles     = 0x19 // u32 count, then per file: u32 size | u16 key | u16 0 | name 56; big-endian

	fwCfgPort    = 0x514 // the DMA address, big-endian, its upper half first
	fwCfgRead    = 1 << 1
	fwCfgSelect  = 1 << 3
	fwCfgScratch = 0x100000 // guest memory that nobody uses before the first instruction
	fwCfgLimit   = 0x80000  // how much of it is used at most
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

// files gives the names of the device's files.
func (f fwCfg) files(ctx context.Context) (map[string]bool, error) {
	const entry, nameAt = 64, 8
	var head [4]byte
	if err := f.read(ctx, fwCfgFiles, head[:]); err != nil {
		return nil, err
	}
	count := int64(binary.BigEndian.Uint32(head[:]))
	if count > fwCfgLimit/entry-1 {
		return nil, fmt.Errorf("firmware configuration device: %d files", count)
	}
	list := make([]byte, 4+count*entry)
	if err := f.read(ctx, fwCfgFiles, list); err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for rest := list[4:]; len(rest) > 0; rest = rest[entry:] {
		name, _, _ := bytes.Cut(rest[nameAt:entry], []byte{0})
		names[string(name)] = true
	}
	return names, nil
}
