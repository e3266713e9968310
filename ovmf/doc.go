// Package ovmf reads and edits firmware images of edk2's OvmfPkg: the table at the end of
// the image that tells a hypervisor where the launch secret and the kernel hashes go, the
// SEV metadata, and the firmware volume that holds GRUB.
//
// Parse, Unpack and Inspect take any bytes: what is malformed is refused with an error
// that names the place, and no length in the image is believed before it was checked.
// Bundle puts a GRUB EFI application into a build for AMD SEV. It moves nothing else: the
// reset vector, the tables and every other file stay where they were. The same firmware and
// the same application give the same bytes, and bundling again replaces what was bundled.
//
// Layouts: edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm (table at the end) and
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm; UEFI Platform Initialization
// Specification 1.8, volume 3 (volumes, files, sections).
package ovmf
