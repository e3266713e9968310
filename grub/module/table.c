/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "table.h"

#include "bytes.h"

/* 1e74f542-71dd-4d66-963e-ef4287ff173b (Linux EFI_SECRET_TABLE_HEADER_GUID) */
static const uint8_t table_guid[16] = {0x42, 0xf5, 0x74, 0x1e, 0xdd, 0x71, 0x66, 0x4d, 0x96, 0x3e, 0xef, 0x42, 0x87, 0xff, 0x17, 0x3b};
/* 736869e5-84f0-4973-92ec-06879ce3da0b (the disk passphrase, as in QEMU's and edk2's documents) */
static const uint8_t passphrase_guid[16] = {0xe5, 0x69, 0x68, 0x73, 0xf0, 0x84, 0x73, 0x49, 0x92, 0xec, 0x06, 0x87, 0x9c, 0xe3, 0xda, 0x0b};
/* 0fb5b5f5-2c3f-4d0c-9d7a-6f7f1e7b5a10 (sealboot's own: the passphrase before, until the guest has used the new one) */
static const uint8_t previous_guid[16] = {0xf5, 0xb5, 0xb5, 0x0f, 0x3f, 0x2c, 0x0c, 0x4d, 0x9d, 0x7a, 0x6f, 0x7f, 0x1e, 0x7b, 0x5a, 0x10};
/* 5ea1b007-6c75-4b73-8d31-5c0a1f5e9d21 (sealboot's own: the pin of the disk's header) */
static const uint8_t pin_guid[16] = {0x07, 0xb0, 0xa1, 0x5e, 0x75, 0x6c, 0x73, 0x4b, 0x8d, 0x31, 0x5c, 0x0a, 0x1f, 0x5e, 0x9d, 0x21};
/* 8d8f6b1e-53a4-4a7e-b6c1-2c9d3f0a7e44 (sealboot's own: for telling the key server what was used) */
static const uint8_t receipt_guid[16] = {0x1e, 0x6b, 0x8f, 0x8d, 0xa4, 0x53, 0x7e, 0x4a, 0xb6, 0xc1, 0x2c, 0x9d, 0x3f, 0x0a, 0x7e, 0x44};

/*
 * Reads a little-endian length at any alignment, and reads it once: the area is memory
 * that somebody else may still write, and what was checked must be what is used.
 */
static uint32_t read32(const uint8_t *at)
{
	const volatile uint8_t *p = at;
	uint32_t b0 = p[0], b1 = p[1], b2 = p[2], b3 = p[3];
	return b0 | b1 << 8 | b2 << 16 | b3 << 24;
}

const char *table_read(uint8_t *area, uint64_t area_size, struct table *found)
{
	const uint8_t *seen[TABLE_ENTRIES];
	unsigned entries = 0, i;
	struct table read = {{NULL, 0}, {NULL, 0}, {NULL, 0}, {NULL, 0}};
	uint64_t total, at;

	*found = read;
	if (area_size < TABLE_HEADER)
		return "the firmware's secret area is smaller than the header of a table";
	if (all_zero(area, TABLE_HEADER))
		return "no secret: nothing was put into the secret area of this machine";
	if (!same(area, table_guid, sizeof table_guid))
		return "no secret: the secret area does not begin with a secret table";
	total = read32(area + 16);
	if (total < TABLE_HEADER || total > area_size)
		return "malformed secret table: its length does not fit the secret area";

	for (at = TABLE_HEADER; total - at >= TABLE_HEADER;) {
		struct table_entry entry;
		entry.start = area + at;
		entry.size = read32(entry.start + 16);
		if (entry.size < TABLE_HEADER || entry.size > total - at)
			return "malformed secret table: the length of an entry does not fit the table";
		at += entry.size;
		if (all_zero(entry.start, 16))
			continue; /* deleted */
		for (i = 0; i < entries; i++)
			if (same(seen[i], entry.start, 16))
				return "malformed secret table: two entries have the same GUID";
		if (entries == TABLE_ENTRIES)
			return "malformed secret table: more than 64 entries";
		seen[entries++] = entry.start;
		if (same(entry.start, passphrase_guid, sizeof passphrase_guid))
			read.passphrase = entry;
		else if (same(entry.start, previous_guid, sizeof previous_guid))
			read.previous = entry;
		else if (same(entry.start, pin_guid, sizeof pin_guid))
			read.pin = entry;
		else if (same(entry.start, receipt_guid, sizeof receipt_guid))
			read.receipt = entry;
	}
	/* The length may count the padding to 16 bytes: fewer than an entry's header, all zero. */
	if (!all_zero(area + at, total - at))
		return "malformed secret table: bytes after the last entry";

	if (read.passphrase.start == NULL)
		return "no secret: the secret table holds no disk passphrase";
	if (read.pin.start == NULL)
		return "no secret: the secret table holds no pin of the disk's header";
	/* An empty key file would make cryptomount ask for a passphrase. */
	if (entry_data_size(&read.passphrase) == 0)
		return "malformed secret table: the disk passphrase is empty";
	if (entry_data_size(&read.passphrase) > PASSPHRASE_MAX)
		return "malformed secret table: the disk passphrase is longer than 4096 bytes";
	if (entry_data_size(&read.pin) != PIN_SIZE)
		return "malformed secret table: the pin of the disk's header is not 32 bytes long";
	if (read.previous.start != NULL && entry_data_size(&read.previous) == 0)
		return "malformed secret table: the previous passphrase is empty";
	if (read.previous.start != NULL && entry_data_size(&read.previous) > PASSPHRASE_MAX)
		return "malformed secret table: the previous passphrase is longer than 4096 bytes";
	if (read.receipt.start != NULL && entry_data_size(&read.receipt) != RECEIPT_SIZE)
		return "malformed secret table: the receipt is not 48 bytes long";
	*found = read;
	return NULL;
}

static void entry_delete(struct table_entry *e)
{
	if (e->start == NULL)
		return;
	wipe(e->start, 16);
	wipe(e->start + TABLE_HEADER, e->size - TABLE_HEADER);
	e->start = NULL;
	e->size = 0;
}

void table_delete(struct table *t)
{
	entry_delete(&t->passphrase);
	entry_delete(&t->previous);
	entry_delete(&t->pin);
	entry_delete(&t->receipt);
}
