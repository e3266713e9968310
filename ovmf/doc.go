// Package ovmf reads and edits firmware images of edk2's OvmfPkg: the table at the end of
// the image that tells a hypervisor where the launch secret and the kernel hashes go, the
// SEV metadata, and the firmware volume that holds GRUB.
//
// Parse, Unpack and Inspect take any bytes: what is malformed is refused with an error
// that names the place, no length in the image is believed before it was checked, and what
// is unpacked is bounded. Unpack accepts only what Pack gives back to the byte.
//
// Bundle puts a GRUB EFI application into a build for AMD SEV. It moves nothing else: the
// reset vector, the tables and every other file stay where they were. The same firmware and
// the same application give the same bytes, and bundling again replaces what was bundled.
//
// # Why an editor of our own
//
// linuxboot/fiano (2026-05) edits volumes too. Tried on Debian's OVMF.amdsev.fd, taking the image
// apart and putting it together changed 673,640 of its 4,194,304 bytes, since it always packs
// anew; it accepted wrong volume and file checksums, and it unpacks LZMA without a bound. What has to be edited here is one file in
// one volume, under one packed section: small enough to be strict about. UEFIExtract A62
// reads the result and takes out the same application.
//
// # Sources
//
// edk2 OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm (table at the end) and
// OvmfPkg/ResetVector/X64/OvmfSevMetadata.asm; edk2 OvmfPkg/Library/PlatformBootManagerLibGrub
// (boots a shell if one is there, then GRUB, and then whatever the disks offer: see Bundle); UEFI Platform Initialization
// Specification, volume 3 (volumes, files, sections).
package ovmf
