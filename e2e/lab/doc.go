// Package lab drives sealboot's own programs through whole launches, as its users would, on
// one machine without SEV hardware: the demonstration and the end-to-end tests share it.
//
// Nothing here reaches into the product: images are built by `sealboot build`, keys come from
// `sealboot keyserver`, machines are started by `sealboot launch` with qemu-sev as QEMU. What
// the lab adds is the guest's root file system and the proof that it asks of a guest.
package lab
