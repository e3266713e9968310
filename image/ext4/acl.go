package ext4

import (
	"errors"
	"fmt"
)

// POSIX access control lists: Linux hands them out with entries of one size (posix_acl_xattr.h),
// ext4 stores those without an identifier shorter (fs/ext4/acl.h).
const (
	aclXattrVersion = 2
	aclDiskVersion  = 1
	aclUserObj      = 0x01
	aclUser         = 0x02
	aclGroupObj     = 0x04
	aclGroup        = 0x08
	aclMask         = 0x10
	aclOther        = 0x20
	aclXattrEntry   = 8
	aclShortEntry   = 4
	aclHeader       = 4
	aclNoID         = 0xffffffff
)

var errACL = errors.New("malformed access control list")

func aclToDisk(value []byte) ([]byte, error) {

	if len(value) < aclHeader || (len(value)-aclHeader)%aclXattrEntry != 0 || le.Uint32(value) != aclXattrVersion {
		return nil, errACL
	}
	disk := le.AppendUint32(nil, aclDiskVersion)
	for rest := value[aclHeader:]; len(rest) > 0; rest = rest[aclXattrEntry:] {
		disk = append(disk, rest[:aclShortEntry]...)
		switch tag := le.Uint16(rest); tag {
		case aclUser, aclGroup:
			disk = append(disk, rest[aclShortEntry:aclXattrEntry]...)
		case aclUserObj, aclGroupObj, aclMask, aclOther:
		default:
			return nil, fmt.Errorf("%w: tag %#x", errACL, tag)
		}
	}
	return disk, nil
}

func aclFromDisk(disk []byte) ([]byte, error) {

	if len(disk) < aclHeader || le.Uint32(disk) != aclDiskVersion {
		return nil, errACL
	}
	value := le.AppendUint32(nil, aclXattrVersion)
	for rest := disk[aclHeader:]; len(rest) > 0; {
		if len(rest) < aclShortEntry {
			return nil, errACL
		}
		value = append(value, rest[:aclShortEntry]...)
		tag := le.Uint16(rest)
		rest = rest[aclShortEntry:]
		switch tag {
		case aclUser, aclGroup:
			if len(rest) < 4 {
				return nil, errACL
			}
			value = append(value, rest[:4]...)
			rest = rest[4:]
		case aclUserObj, aclGroupObj, aclMask, aclOther:
			value = le.AppendUint32(value, aclNoID)
		default:
			return nil, fmt.Errorf("%w: tag %#x", errACL, tag)
		}
	}
	return value, nil
}
