/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "keyfiles.h"

#include "bytes.h"
#include "grub.h"

static uint8_t passphrase[PASSPHRASE_MAX], previous_one[PASSPHRASE_MAX], pin[PIN_SIZE], receipt[RECEIPT_SIZE], used[8];

static struct keyfile {
	const char *path;
	uint8_t *data;
	uint32_t size; /* 0: there is none, or it is wiped */
} keyfiles[] = {
	{"/passphrase", passphrase, 0}, {"/previous", previous_one, 0}, {"/header-pin", pin, 0},
	{"/receipt", receipt, 0},       {"/used", used, 0},             {"/luks-header", NULL, 0},
};

enum { PASSPHRASE, PREVIOUS, PIN, RECEIPT, USED, HEADER, KEYFILES };

static enum { UNLOCKING, HANDING_OVER, SEALED } phase;

/* Where the files were read to while UNLOCKING. */
static struct {
	const struct keyfile *from;
	uint8_t *to;
	size_t size;
} readers[8];
static unsigned reader_count;

/* Gives a file other content, over the wiped one that it had. The caller knows that it fits. */
static void put(struct keyfile *k, const void *data, uint32_t size)
{
	wipe(k->data, k->size);
	copy(k->data, data, size);
	k->size = size;
}

static void put_entry(struct keyfile *k, const struct table_entry *e)
{
	if (e->start != NULL)
		put(k, entry_data(e), entry_data_size(e));
}

/* The disk: a name to hang the file system on. It has no sectors. */

static grub_err_t disk_open(const char *name, struct grub_disk *disk)
{
	if (grub_strcmp(name, "efisecret") != 0)
		return grub_error(GRUB_ERR_UNKNOWN_DEVICE, "not efisecret");
	disk->total_sectors = 0;
	disk->id = 0;
	return GRUB_ERR_NONE;
}

static void disk_close(struct grub_disk *disk) { (void)disk; }

static grub_err_t disk_read(struct grub_disk *disk, uint64_t sector, size_t size, char *buf)
{
	(void)disk, (void)sector, (void)size, (void)buf;
	return grub_error(GRUB_ERR_OUT_OF_RANGE, "efisecret has no sectors");
}

static grub_err_t disk_write(struct grub_disk *disk, uint64_t sector, size_t size, const char *buf)
{
	(void)disk, (void)sector, (void)size, (void)buf;
	return grub_error(GRUB_ERR_OUT_OF_RANGE, "efisecret has no sectors");
}

static struct grub_disk_dev disk = {
	.name = "efisecret",
	.id = 0x5ea1, /* of no other device (enum grub_disk_dev_id) */
	.disk_open = disk_open,
	.disk_close = disk_close,
	.disk_read = disk_read,
	.disk_write = disk_write,
};

/* The file system. */

static grub_err_t fs_dir(struct grub_device *device, const char *path, grub_fs_dir_hook_t hook, void *hook_data)
{
	(void)path, (void)hook, (void)hook_data;
	if (!device->disk || device->disk->dev != &disk)
		return grub_error(GRUB_ERR_BAD_FS, "not efisecret");
	return GRUB_ERR_NONE;
}

static grub_err_t fs_open(struct grub_file *file, const char *name)
{
	unsigned i;
	if (!file->device->disk || file->device->disk->dev != &disk)
		return grub_error(GRUB_ERR_BAD_FS, "not efisecret");
	for (i = 0; i < KEYFILES; i++)
		if (phase != SEALED && keyfiles[i].size > 0 && grub_strcmp(name, keyfiles[i].path) == 0) {
			file->data = &keyfiles[i];
			file->size = keyfiles[i].size;
			return GRUB_ERR_NONE;
		}
	return grub_error(GRUB_ERR_FILE_NOT_FOUND, "no secret of that name");
}

static long fs_read(struct grub_file *file, char *buf, size_t len)
{
	struct keyfile *k = file->data;
	/* grub_file_read has checked the offset and cut len to the file's size; the file may have been wiped since. */
	if (file->offset > k->size || len > k->size - file->offset) {
		grub_error(GRUB_ERR_OUT_OF_RANGE, "the secret is wiped");
		return -1;
	}
	if (phase == UNLOCKING && k != &keyfiles[HEADER]) {
		if (reader_count == sizeof readers / sizeof readers[0]) {
			grub_error(GRUB_ERR_OUT_OF_RANGE, "the secret is read too often");
			return -1;
		}
		readers[reader_count].from = k;
		readers[reader_count].to = (uint8_t *)buf;
		readers[reader_count++].size = len;
	}
	copy(buf, k->data + file->offset, len);
	return (long)len;
}

static grub_err_t fs_close(struct grub_file *file)
{
	struct keyfile *k = file->data;
	if (phase != UNLOCKING && k != &keyfiles[HEADER])
		put(k, NULL, 0);
	return GRUB_ERR_NONE;
}

static struct grub_fs fs = {
	.name = "efisecret",
	.fs_dir = fs_dir,
	.fs_open = fs_open,
	.fs_read = fs_read,
	.fs_close = fs_close,
};

void keyfiles_show(const struct table *table)
{
	put_entry(&keyfiles[PASSPHRASE], &table->passphrase);
	put_entry(&keyfiles[PREVIOUS], &table->previous);
	put_entry(&keyfiles[PIN], &table->pin);
	put_entry(&keyfiles[RECEIPT], &table->receipt);
	grub_disk_dev_register(&disk);
	/* grub_fs_register (include/grub/fs.h) is inline: put at the head of the list. */
	fs.next = grub_fs_list;
	fs.prev = &grub_fs_list;
	if (fs.next)
		fs.next->prev = &fs.next;
	grub_fs_list = &fs;
}

void keyfiles_show_header(uint8_t *header, uint32_t size)
{
	keyfiles[HEADER].data = header;
	keyfiles[HEADER].size = size;
}

void keyfiles_wipe_readers(void)
{
	/*
	 * The buffer may be freed by now (a later cryptomount may do what 2.12's does not), and
	 * even be somebody else's. Zeros go only where the whole secret still stands, so that
	 * nothing but the secret is ever overwritten.
	 */
	while (reader_count > 0) {
		reader_count--;
		if (readers[reader_count].size == readers[reader_count].from->size &&
		    same(readers[reader_count].to, readers[reader_count].from->data, readers[reader_count].size))
			wipe(readers[reader_count].to, readers[reader_count].size);
	}
}

void keyfiles_use(int previous)
{
	const char *which = previous ? "previous" : "current";
	if (previous)
		put(&keyfiles[PASSPHRASE], previous_one, keyfiles[PREVIOUS].size);
	put(&keyfiles[PREVIOUS], NULL, 0);
	put(&keyfiles[USED], which, (uint32_t)length(which));
}

void keyfiles_hand_over(void) { phase = HANDING_OVER; }

void keyfiles_seal(void) { phase = SEALED; }

void keyfiles_wipe(void)
{
	unsigned i;
	keyfiles_wipe_readers();
	for (i = 0; i < HEADER; i++)
		put(&keyfiles[i], NULL, 0);
	phase = SEALED;
}
