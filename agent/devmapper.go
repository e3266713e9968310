package agent

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

const mapperFolder = "/dev/mapper/"

// deviceMapper makes devices with dm-crypt, as cryptsetup does: the volume key goes to the
// kernel's keyring, under a type that cannot be read back, and the table only names it. So
// the key shows neither in the table (`dmsetup table --showkeys`) nor in any process.
type deviceMapper struct{}

// params gives dm-crypt's line: CIPHER KEY IV-OFFSET DEVICE START [OPTIONS]. The IV of plain64
// counts 512-byte sectors whatever the sector size, as LUKS2 has it: no iv_large_sectors.
func (t Table) params(keyName string, keySize int) string {
	p := fmt.Sprintf("%s :%d:logon:%s %d %s %d", t.Cipher, keySize, keyName, t.IVOffset, t.Device, t.Start/linuxSector)
	if t.SectorSize != linuxSector {
		p += fmt.Sprintf(" 1 sector_size:%d", t.SectorSize)
	}
	return p
}

func (deviceMapper) Map(t Table, key []byte) error {
	// A thread's keyring belongs to one thread, and dm-crypt looks there while that thread waits.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	keyName := "sealboot:" + t.UUID
	id, err := unix.AddKey("logon", keyName, key, unix.KEY_SPEC_THREAD_KEYRING)
	if err != nil {
		return fmt.Errorf("give the key to the kernel: %w", err)
	}
	// dm-crypt has its own copy once the table is loaded; revoking frees this one.
	defer func() {
		unix.KeyctlInt(unix.KEYCTL_REVOKE, id, 0, 0, 0)
		unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	}()
	control, err := os.OpenFile(mapperFolder+"control", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer control.Close()
	// The form of UUID by which cryptsetup knows its own: CRYPT-LUKS2-UUID-NAME.
	uuid := "CRYPT-LUKS2-" + strings.ReplaceAll(t.UUID, "-", "") + "-" + t.Name
	device, err := mapperCall(control, unix.DM_DEV_CREATE, t.Name, uuid, nil)
	if err != nil {
		return fmt.Errorf("make device: %w", err)
	}
	if _, err := mapperCall(control, unix.DM_TABLE_LOAD, t.Name, "", &target{t.Length / linuxSector, t.params(keyName, len(key))}); err != nil {
		mapperCall(control, unix.DM_DEV_REMOVE, t.Name, "", nil)
		return fmt.Errorf("load table: %w", err)
	}
	if _, err := mapperCall(control, unix.DM_DEV_SUSPEND, t.Name, "", nil); err != nil { // without its flag: resume
		mapperCall(control, unix.DM_DEV_REMOVE, t.Name, "", nil)
		return fmt.Errorf("start device: %w", err)
	}
	// No udev is there yet to make the link that root= names.
	if err := os.Symlink(fmt.Sprintf("../dm-%d", unix.Minor(device)), mapperFolder+t.Name); err != nil && !os.IsExist(err) {
		return err
	}
	return announce(device, t.Name)
}

// target is the one row of the table.
type target struct {
	sectors int64
	params  string
}

// mapperCall does one ioctl of the device mapper on a device (Linux include/uapi/linux/dm-ioctl.h)
// and gives its number.
func mapperCall(control *os.File, request uint, name, uuid string, t *target) (uint64, error) {
	size := unix.SizeofDmIoctl
	if t != nil {
		size += unix.SizeofDmTargetSpec + (len(t.params)+8)&^7 // its zero byte, and the next row's alignment
	}
	buffer := make([]byte, size)
	head := (*unix.DmIoctl)(unsafe.Pointer(&buffer[0]))
	head.Version = [3]uint32{4, 0, 0}
	head.Data_size = uint32(size)
	head.Data_start = unix.SizeofDmIoctl
	copy(head.Name[:len(head.Name)-1], name)
	copy(head.Uuid[:len(head.Uuid)-1], uuid)
	if t != nil {
		head.Target_count = 1
		row := buffer[unix.SizeofDmIoctl:]
		// struct dm_target_spec: u64 sector_start, u64 length, s32 status, u32 next, char target_type[16]
		binary.NativeEndian.PutUint64(row[8:], uint64(t.sectors))
		copy(row[24:40], "crypt")
		copy(row[unix.SizeofDmTargetSpec:], t.params)
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, control.Fd(), uintptr(request), uintptr(unsafe.Pointer(&buffer[0])))
	runtime.KeepAlive(buffer)
	if errno != 0 {
		return 0, errno
	}
	return head.Dev, nil
}

const (
	udevRecords = "/run/udev/data"
	udevRules   = "/run/udev/rules.d"
	// udevRule is what of LVM's rules (10-dm.rules, 13-dm-disk.rules) our devices need where they are not installed, as in a Debian 13
	// with dracut: without a name systemd takes the device for unfinished, and without links it waits for them for ever.
	// A disk without the attribute would not match != either.
	udevRule = `SUBSYSTEM!="block", GOTO="sealboot_end"
ACTION=="remove", GOTO="sealboot_end"
ATTR{dm/name}=="` + RootName + `|` + BootName + `", GOTO="sealboot_device"
GOTO="sealboot_end"
LABEL="sealboot_device"
ENV{DM_NAME}="$attr{dm/name}", SYMLINK+="mapper/$attr{dm/name}"
IMPORT{builtin}="blkid"
ENV{ID_FS_UUID_ENC}=="?*", SYMLINK+="disk/by-uuid/$env{ID_FS_UUID_ENC}"
ENV{ID_FS_LABEL_ENC}=="?*", SYMLINK+="disk/by-label/$env{ID_FS_LABEL_ENC}"
LABEL="sealboot_end"
`
)

// announce writes what udev would have stored had it been running (systemd's udev database,
// /run/udev/data/bMAJOR:MINOR), and a rule. Without the record, udev's rules for device-mapper take the device
// for one under construction, and systemd never calls it ready.
func announce(device uint64, deviceName string) error {
	if err := os.MkdirAll(udevRules, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(udevRules+"/59-sealboot.rules", []byte(udevRule), 0o644); err != nil {
		return err
	}
	if err := os.MkdirAll(udevRecords, 0o755); err != nil {
		return err
	}
	name := fmt.Sprintf("%s/b%d:%d", udevRecords, unix.Major(device), unix.Minor(device))
	return os.WriteFile(name, []byte("E:DM_UDEV_PRIMARY_SOURCE_FLAG=1\nE:DM_UDEV_RULES_VSN=2\nE:DM_ACTIVATION=1\nE:DM_NAME="+deviceName+"\nE:DM_SUSPENDED=0\n"), 0o644)
}
