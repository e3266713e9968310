package ext4

// groupDesc is struct ext4_group_desc. With 32-byte descriptors the upper halves are absent.
type groupDesc struct {
	BlockBitmap, InodeBitmap, InodeTable uint64
	FreeBlocks, FreeInodes, UsedDirs     uint32
	Flags                                uint16
	ExcludeBitmap                        uint64
	BlockBitmapCsum, InodeBitmapCsum     uint32
	ItableUnused                         uint32
	Checksum                             uint16
}

func (d *groupDesc) encode(b []byte) {

	le.PutUint32(b[0x00:], uint32(d.BlockBitmap))
	le.PutUint32(b[0x04:], uint32(d.InodeBitmap))
	le.PutUint32(b[0x08:], uint32(d.InodeTable))
	le.PutUint16(b[0x0c:], uint16(d.FreeBlocks))
	le.PutUint16(b[0x0e:], uint16(d.FreeInodes))
	le.PutUint16(b[0x10:], uint16(d.UsedDirs))
	le.PutUint16(b[0x12:], d.Flags)
	le.PutUint32(b[0x14:], uint32(d.ExcludeBitmap))
	le.PutUint16(b[0x18:], uint16(d.BlockBitmapCsum))
	le.PutUint16(b[0x1a:], uint16(d.InodeBitmapCsum))
	le.PutUint16(b[0x1c:], uint16(d.ItableUnused))
	le.PutUint16(b[groupDescCsum:], d.Checksum)
	if len(b) < 64 {
		return
	}
	le.PutUint32(b[0x20:], uint32(d.BlockBitmap>>32))
	le.PutUint32(b[0x24:], uint32(d.InodeBitmap>>32))
	le.PutUint32(b[0x28:], uint32(d.InodeTable>>32))
	le.PutUint16(b[0x2c:], uint16(d.FreeBlocks>>16))
	le.PutUint16(b[0x2e:], uint16(d.FreeInodes>>16))
	le.PutUint16(b[0x30:], uint16(d.UsedDirs>>16))
	le.PutUint16(b[0x32:], uint16(d.ItableUnused>>16))
	le.PutUint32(b[0x34:], uint32(d.ExcludeBitmap>>32))
	le.PutUint16(b[0x38:], uint16(d.BlockBitmapCsum>>16))
	le.PutUint16(b[0x3a:], uint16(d.InodeBitmapCsum>>16))
}

func decodeGroupDesc(b []byte) groupDesc {

	d := groupDesc{
		BlockBitmap:     uint64(le.Uint32(b[0x00:])),
		InodeBitmap:     uint64(le.Uint32(b[0x04:])),
		InodeTable:      uint64(le.Uint32(b[0x08:])),
		FreeBlocks:      uint32(le.Uint16(b[0x0c:])),
		FreeInodes:      uint32(le.Uint16(b[0x0e:])),
		UsedDirs:        uint32(le.Uint16(b[0x10:])),
		Flags:           le.Uint16(b[0x12:]),
		ExcludeBitmap:   uint64(le.Uint32(b[0x14:])),
		BlockBitmapCsum: uint32(le.Uint16(b[0x18:])),
		InodeBitmapCsum: uint32(le.Uint16(b[0x1a:])),
		ItableUnused:    uint32(le.Uint16(b[0x1c:])),
		Checksum:        le.Uint16(b[groupDescCsum:]),
	}
	if len(b) < 64 {
		return d
	}
	d.BlockBitmap |= uint64(le.Uint32(b[0x20:])) << 32
	d.InodeBitmap |= uint64(le.Uint32(b[0x24:])) << 32
	d.InodeTable |= uint64(le.Uint32(b[0x28:])) << 32
	d.FreeBlocks |= uint32(le.Uint16(b[0x2c:])) << 16
	d.FreeInodes |= uint32(le.Uint16(b[0x2e:])) << 16
	d.UsedDirs |= uint32(le.Uint16(b[0x30:])) << 16
	d.ItableUnused |= uint32(le.Uint16(b[0x32:])) << 16
	d.ExcludeBitmap |= uint64(le.Uint32(b[0x34:])) << 32
	d.BlockBitmapCsum |= uint32(le.Uint16(b[0x38:])) << 16
	d.InodeBitmapCsum |= uint32(le.Uint16(b[0x3a:])) << 16
	return d
}
