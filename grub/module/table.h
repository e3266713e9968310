/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The secret table that the machine's owner has put into the firmware's secret area.
 * Layout (QEMU docs/specs/..., Linux drivers/virt/coco/efi_secret): a header {GUID, u32
 * total length} and entries {GUID, u32 length with these 20 bytes, data}; an entry of the
 * zero GUID is a deleted one, whose length still counts.
 */
#ifndef SEALBOOT_TABLE_H
#define SEALBOOT_TABLE_H

#include <stddef.h>
#include <stdint.h>

enum {
	TABLE_HEADER = 20,    /* bytes of the table's header, and of each entry's */
	TABLE_ENTRIES = 64,   /* as many as Linux shows (EFI_SECRET_NUM_FILES) */
	PASSPHRASE_MAX = 4096,
	PIN_SIZE = 32,        /* SHA-256 */
	RECEIPT_SIZE = 48,    /* session id, key */
};

/* An entry: where it stands in the area, header included. */
struct table_entry {
	uint8_t *start;
	uint32_t size;
};

/* What is for us; previous and receipt may be missing. All other entries are left for the kernel's driver. */
struct table {
	struct table_entry passphrase, previous, pin, receipt;
};

/* What table_read found wrong, as a text for the console; NULL if nothing. */
const char *table_read(uint8_t *area, uint64_t area_size, struct table *found);

/* The data of an entry that table_read found. */
static inline const uint8_t *entry_data(const struct table_entry *e) { return e->start + TABLE_HEADER; }
static inline uint32_t entry_data_size(const struct table_entry *e) { return e->size - TABLE_HEADER; }

/* Marks the entries as deleted: GUID and data zero, their lengths as they were. */
void table_delete(struct table *t);

#endif
