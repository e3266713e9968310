// Package luks makes, reads and changes LUKS2 headers, and encrypts the sectors behind them.
//
// It follows the "LUKS2 On-Disk Format Specification" (cryptsetup project, version 1.1.1)
// and, for reading only, the "LUKS1 On-Disk Format Specification" (version 1.2.3). One
// data segment, one volume key digest and aes-xts-plain64 are all that it knows.
//
// Reading takes bytes from a disk that an attacker may have written. [Read] reads every
// byte that it will ever use once, into memory, so what was checked is what is used. It
// refuses what it does not know: other ciphers (cipher_null above all), other key slot
// types, segments with integrity or flags, requirements, unknown and repeated JSON
// members, areas that overlap, costs above [DefaultLimits]. A copy of the header that is
// damaged is passed over for the other one, and [Header.Status] says so; a copy that is
// whole but refused refuses the header, because other programs would use that copy.
// On an error every other result is zero.
//
// LUKS does not authenticate: who writes the disk can replace the header by one of their
// own making. [Header.Pin] is what a trusted party compares before the volume key is used.
//
// Keys in buffers of this package are overwritten after use. Copies inside the standard
// library's HMAC and AES, and Argon2's memory, are not within reach and stay until they
// are collected and used again.
package luks
