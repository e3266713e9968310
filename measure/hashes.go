package measure

import (
	"crypto/sha256"

	"github.com/sealboot/sealboot/internal/guid"
)

// Identifiers of the hashes table (QEMU target/i386/sev.c; edk2 OvmfPkg/AmdSev/BlobVerifierLibSevHashes).
var (
	hashesTableGUID  = guid.MustParse("9438d606-4f22-4cc9-b479-a793d411fd21")
	cmdlineEntryGUID = guid.MustParse("97d02dd8-bd20-4c94-aa78-e7714d36ab2a")
	initrdEntryGUID  = guid.MustParse("44baf731-3a2f-4bd7-9af1-41e29169781d")
	kernelEntryGUID  = guid.MustParse("4de79437-abd2-427f-b835-d5b172d2045b")
)

const (
	hashesEntrySize = 16 + 2 + sha256.Size         // GUID, u16 length, hash
	hashesTableSize = 16 + 2 + 3*hashesEntrySize   // GUID, u16 length, entries: 168
	hashesPadded    = (hashesTableSize + 15) &^ 15 // SEV measures 16 bytes at a time: 176
)

// KernelHashes makes the table that QEMU writes to the firmware's hashes area with
// kernel-hashes=on, zero padded to a multiple of 16 bytes. It is measured as it stands.
// The command line is given without its trailing NUL; no initrd is an empty one.
func KernelHashes(kernel, initrd []byte, cmdline string) []byte {
	return HashesTable(sha256.Sum256(kernel), sha256.Sum256(initrd), sha256.Sum256(append([]byte(cmdline), 0)))
}
