package grow

import (
	"fmt"
	"os"
	"unsafe"
)

// xfsGeometry is struct xfs_fsop_geom_v4 (Linux fs/xfs/libxfs/xfs_fs.h), which every kernel gives.
type xfsGeometry struct {
	BlockSize, ExtentSize, GroupBlocks, Groups, LogBlocks, SectorSize, InodeSize, InodePercent uint32
	DataBlocks, RealtimeBlocks, RealtimeExtents, LogStart                                      uint64
	UUID                                                                                       [16]byte
	Unit, Width, Version, Flags, LogSectorSize, RealtimeSectorSize, FolderBlockSize, LogUnit   uint32
}

// xfsGrowth is struct xfs_growfs_data.
type xfsGrowth struct {
	Blocks       uint64
	InodePercent uint32
	_            uint32
}

const (
	xfsGetGeometry   = 0x8070587c // XFS_IOC_FSGEOMETRY_V4, _IOR('X', 124, struct xfs_fsop_geom_v4)
	xfsGrowData      = 0x4010586e // XFS_IOC_FSGROWFSDATA, _IOW('X', 110, struct xfs_growfs_data)
	xfsMinGroupBlock = 64         // XFS_MIN_AG_BLOCKS: a smaller rest at the end of the device stays unused
)

func growXFS(folder *os.File) (*Result, error) {
	device, size, err := deviceOf(folder)
	if err != nil {
		return nil, err
	}
	device.Close()
	var now xfsGeometry
	if err := call(folder, xfsGetGeometry, unsafe.Pointer(&now)); err != nil {
		return nil, fmt.Errorf("ask for its geometry: %w", err)
	}
	r := &Result{Kind: "xfs", Before: now.bytes(), After: now.bytes(), Device: size}
	wanted, err := now.target(size)
	if err != nil {
		return nil, err
	}
	if wanted <= now.DataBlocks {
		return r, nil
	}
	if err := call(folder, xfsGrowData, unsafe.Pointer(&xfsGrowth{Blocks: wanted, InodePercent: now.InodePercent})); err != nil {
		return nil, fmt.Errorf("from %d to %d blocks: %w", now.DataBlocks, wanted, err)
	}
	if err := call(folder, xfsGetGeometry, unsafe.Pointer(&now)); err != nil {
		return nil, fmt.Errorf("ask for its geometry: %w", err)
	}
	r.After = now.bytes()
	return r, nil
}

func (g *xfsGeometry) bytes() int64 { return int64(g.DataBlocks * uint64(g.BlockSize)) }

// target gives the number of blocks to grow to on a device of so many bytes.
func (g *xfsGeometry) target(device int64) (uint64, error) {
	if g.BlockSize == 0 || g.GroupBlocks == 0 {
		return 0, fmt.Errorf("the kernel says that it has groups of %d blocks of %d bytes", g.GroupBlocks, g.BlockSize)
	}
	blocks := uint64(device) / uint64(g.BlockSize)
	if rest := blocks % uint64(g.GroupBlocks); rest < xfsMinGroupBlock {
		blocks -= rest
	}
	return blocks, nil
}
