/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A judge of LUKS2 headers, before GRUB's own reader sees one.
 *
 * Whoever has the disk can write its header, and GRUB 2.12's luks2 module believes it: a
 * "key_size" above 128 overflows buffers on the stack (tried with 5000: it jumps to where the
 * overwritten return address says), an area smaller than key_size times
 * stripes yields a volume key out of whatever stands in the heap, and an empty digest
 * accepts any key. Each of these can end with the host's kernel holding the passphrase. So
 * the header is copied once, judged, and cryptomount reads that copy (its option -H).
 *
 * Accepted is what package luks writes, and cryptsetup with the same cipher: one segment
 * and key slots of aes-xts-plain64 with 512-bit keys, one digest of 32 or 64 bytes. JSON is taken
 * in a narrow form, without escapes, so that every reader understands the same.
 * (LUKS2 On-Disk Format Specification 1.1.1.)
 */
#ifndef SEALBOOT_HEADER_H
#define SEALBOOT_HEADER_H

#include <stddef.h>
#include <stdint.h>

enum {
	HEADER_BINARY = 4096,   /* bytes before the JSON text */
	HEADER_MAX = 16 << 20,  /* bytes up to the end of the last key slot's area */
	HEADER_UUID = 36,
};

/* The size of one of the two copies, from the first HEADER_BINARY bytes of a disk; 0: this is no LUKS2 header. */
uint64_t header_size(const uint8_t *start);

struct header {
	char uuid[HEADER_UUID + 1]; /* in lower case */
	uint64_t end;               /* of what cryptomount reads: both copies and the key slots' areas */
};

/*
 * What is wrong with a header, of which both copies are given, for the console; NULL if
 * nothing. The copy that GRUB would not take gets the sequence number 0.
 */
const char *header_check(uint8_t *copies, uint64_t size, struct header *out);

/* The UUID in the first 512 bytes of a LUKS2 header of either copy, in lower case. */
int header_uuid(const uint8_t *start, char *uuid);

#endif
