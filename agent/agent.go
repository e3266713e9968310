// Package agent is the guest's side of a boot: the first program of the initramfs, process 1.
//
// It takes the passphrase and the header pin that GRUB left in the initramfs and removes
// them; loads the kernel modules that the initramfs lists; waits, for a bounded time, for the
// disk whose LUKS UUID the kernel command line names; reads that disk's header once; compares
// the pin of that copy with the pin from the secret table; opens the root from that very
// copy through dm-crypt, and the boot volume before it if there is one (package luks/layout); wipes the keys; leaves the receipt
// of a change of passphrase, if there is one, in /run for the guest's root user (package receipt); and becomes the
// distribution's own init: that of its initramfs, if GRUB loaded one before ours and its rescue shell can be turned off
// (initramfs-tools, dracut), else the root's.
//
// With a boot volume, the root is of a kind that the builder does not write (xfs, btrfs). What it would have put there waits
// in the boot volume (InstallTree), and the agent puts it into the root: whole, before anything of the root
// runs, and again from the beginning if the machine went off meanwhile. Then the tree is removed. A root is completed once for a
// disk, whatever the host puts back in the boot volume later. The kernel command line has to say the root's kind; a btrfs root stays mounted when
// a distribution's initramfs takes over, which keeps the host's disks out of it (holdRoot).
//
// The disk, and every device beside it, is the host's and lies where it can. The command line,
// this program and the modules are measured or come out of the encrypted root. LUKS does
// not authenticate: without the pin, a header of the host's making that takes any passphrase
// (CVE-2025-59054) would be mounted as root. There is no question to a person anywhere, since
// the person at the console is the host. Whatever is wrong ends the machine: one line
// "sealboot: stopped: …" on the console, and power off.
package agent

import (
	"errors"

	"github.com/sealboot/sealboot/agent/receipt"
	"github.com/sealboot/sealboot/luks"
)

// Names that the agent shares with the initramfs's builder and with GRUB's configuration.
const (
	Folder         = "/sealboot"
	ModuleList     = Folder + "/modules.list"
	ModuleFolder   = Folder + "/modules"
	KeyFolder      = Folder + "/key"
	PassphraseFile = "passphrase" // in KeyFolder
	PinFile        = "header-pin" // in KeyFolder
	UsedFile       = "used"       // in KeyFolder: which passphrase opened the disk
	ReceiptFile    = "receipt"    // in KeyFolder, if there is one
	RootName       = "sealboot-root"
	RootDevice     = mapperFolder + RootName
	BootName       = "sealboot-boot"
	BootDevice     = mapperFolder + BootName
	DiskParameter  = "sealboot.disk" // on the kernel command line
	// InstallTree is in the boot volume what is to be put into the root, under the same paths as there.
	InstallTree = "/sealboot/install"
)

// Reasons to stop.
var (
	ErrNoDiskName   = errors.New("the kernel command line names no disk (sealboot.disk=UUID)")
	ErrNoPassphrase = errors.New("no passphrase came from GRUB")
	ErrNoPin        = errors.New("no header pin came from GRUB")
	ErrReceipt      = errors.New("the receipt that came from GRUB cannot be used")
	ErrModules      = errors.New("a kernel module that is needed does not load")
	ErrNoDisk       = errors.New("the disk is not there")
	ErrHeader       = errors.New("the disk's LUKS header is refused")
	ErrPin          = errors.New("the disk's LUKS header is not the one that was recorded")
	ErrTruncated    = errors.New("the disk is smaller than its LUKS header says")
	ErrKey          = errors.New("the passphrase does not open the disk")
	ErrBootVolume   = errors.New("the disk's boot volume is refused")
	ErrNoKind       = errors.New("the kernel command line does not say of what kind the root is (rootfstype=xfs or btrfs)")
	ErrInstall      = errors.New("the root cannot be completed from the boot volume")
	ErrNoInit       = errors.New("the root has no init")
)

// Keys are what GRUB hands over from the secret table.
type Keys struct {
	Passphrase []byte
	Pin        luks.Pin
	Receipt    *receipt.Receipt // nil: there is none
}

// Wipe overwrites the passphrase and the receipt's key.
func (k *Keys) Wipe() {
	clear(k.Passphrase)
	if k.Receipt != nil {
		k.Receipt.Wipe()
	}
}
