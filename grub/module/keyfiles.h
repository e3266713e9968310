/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the table held, as files for `cryptomount -k` and `initrd newc:`, and the copy of the
 * disk's header that header.c has judged, for `cryptomount -H`.
 *
 * Why not GRUB's procfs, which needs less code: it makes a copy each time a file is opened
 * and frees it without wiping. And cryptomount (2.12) reads the key file into a buffer of
 * its own that it neither wipes nor frees, and never closes the file. A file system of our
 * own keeps the only copy, sees the buffer that cryptomount reads into, and wipes both.
 */
#ifndef SEALBOOT_KEYFILES_H
#define SEALBOOT_KEYFILES_H

#include "table.h"

#define KEYFILES_PASSPHRASE "(efisecret)/passphrase"
#define KEYFILES_PREVIOUS "(efisecret)/previous"
#define KEYFILES_PIN "(efisecret)/header-pin"
#define KEYFILES_RECEIPT "(efisecret)/receipt"
#define KEYFILES_USED "(efisecret)/used"
#define KEYFILES_HEADER "(efisecret)/luks-header"

/* Copies what table_read found, and shows the files. */
void keyfiles_show(const struct table *table);
/* Shows a LUKS header as a file; the memory has to stay. It is no secret. */
void keyfiles_show_header(uint8_t *header, uint32_t size);
/* Wipes the buffers that the files have been read into since keyfiles_show, as far as they still hold the secret. */
void keyfiles_wipe_readers(void);
/*
 * Says which passphrase opened the disk. That one becomes KEYFILES_PASSPHRASE, the other is
 * wiped, and KEYFILES_USED holds "current" or "previous".
 */
void keyfiles_use(int previous);
/* From now on a file is wiped when it is closed, and buffers read into belong to the kernel. */
void keyfiles_hand_over(void);
/* From now on no file can be opened; those that are open can still be read, and are wiped when closed. */
void keyfiles_seal(void);
/* Wipes every copy. */
void keyfiles_wipe(void);

#endif
