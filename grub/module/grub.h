/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What this module uses of GRUB's and UEFI's binary interfaces, declared anew so that no
 * GRUB sources are needed to build it. Each declaration names the GRUB 2.12 header that
 * it has to agree with. Names from GRUB begin with grub_, names from UEFI with efi_.
 *
 * One structure differs between builds that all call themselves 2.12: security updates of
 * 2025 put a field into struct grub_fs. GRUB_FS_HAS_MOD (0 or 1) says which it is; it
 * comes from the caller of the compiler, who reads it off ext2.mod (see module.go).
 */
#ifndef SEALBOOT_GRUB_H
#define SEALBOOT_GRUB_H

#include <stddef.h>
#include <stdint.h>

#ifndef GRUB_FS_HAS_MOD
#error "define GRUB_FS_HAS_MOD as 0 or 1"
#endif

/* include/grub/err.h: the values of enum grub_err_t used here. */
typedef int grub_err_t;
enum {
	GRUB_ERR_NONE = 0,
	GRUB_ERR_FILE_NOT_FOUND = 5,
	GRUB_ERR_BAD_FS = 9,
	GRUB_ERR_OUT_OF_RANGE = 11,
	GRUB_ERR_UNKNOWN_DEVICE = 12,
	GRUB_ERR_ACCESS_DENIED = 30,
};
extern grub_err_t grub_errno;
extern char grub_errmsg[256]; /* GRUB_MAX_ERRMSG */
grub_err_t grub_error(grub_err_t n, const char *fmt, ...);

/* include/grub/misc.h */
int grub_vsnprintf(char *str, size_t n, const char *fmt, __builtin_va_list args);
int grub_snprintf(char *str, size_t n, const char *fmt, ...);
int grub_strcmp(const char *a, const char *b);

/* include/grub/mm.h */
void *grub_malloc(size_t size);

/* include/grub/term.h: the lists of terminals. */
struct grub_term_input;
extern struct grub_term_input *grub_term_inputs, *grub_term_inputs_disabled;
struct grub_term_output;
extern struct grub_term_output *grub_term_outputs, *grub_term_outputs_disabled;

/* include/grub/command.h: the beginning of the structure. */
struct grub_command {
	struct grub_command *next;
	struct grub_command **prev;
	const char *name;
	int prio;
	grub_err_t (*func)(struct grub_command *cmd, int argc, char **argv);
};
extern struct grub_command *grub_command_list;

/* include/grub/disk.h */
struct grub_disk;
struct grub_disk_dev {
	const char *name;
	int id;
	int (*disk_iterate)(int (*hook)(const char *name, void *data), void *hook_data, int pull);
	grub_err_t (*disk_open)(const char *name, struct grub_disk *disk);
	void (*disk_close)(struct grub_disk *disk);
	grub_err_t (*disk_read)(struct grub_disk *disk, uint64_t sector, size_t size, char *buf);
	grub_err_t (*disk_write)(struct grub_disk *disk, uint64_t sector, size_t size, const char *buf);
	struct grub_disk_dev *next;
};
struct grub_disk { /* the beginning of the structure */
	const char *name;
	struct grub_disk_dev *dev;
	uint64_t total_sectors;
	unsigned int log_sector_size;
	unsigned int max_agglomerate;
	unsigned long id;
};
void grub_disk_dev_register(struct grub_disk_dev *dev);
struct grub_disk *grub_disk_open(const char *name);
void grub_disk_close(struct grub_disk *disk);
grub_err_t grub_disk_read(struct grub_disk *disk, uint64_t sector, uint64_t offset, size_t size, void *buf);

/* include/grub/device.h */
struct grub_device {
	struct grub_disk *disk;
	void *net;
};
struct grub_device *grub_device_open(const char *name);
grub_err_t grub_device_close(struct grub_device *device);
int grub_device_iterate(int (*hook)(const char *name, void *data), void *hook_data);

/* include/grub/fs.h */
struct grub_file;
struct grub_dirhook_info { /* the beginning of the structure */
	unsigned dir : 1;
};
typedef int (*grub_fs_dir_hook_t)(const char *filename, const struct grub_dirhook_info *info, void *data);
struct grub_fs {
	struct grub_fs *next;
	struct grub_fs **prev;
	const char *name;
#if GRUB_FS_HAS_MOD
	void *mod;
#endif
	grub_err_t (*fs_dir)(struct grub_device *device, const char *path, grub_fs_dir_hook_t hook, void *hook_data);
	grub_err_t (*fs_open)(struct grub_file *file, const char *name);
	long (*fs_read)(struct grub_file *file, char *buf, size_t len);
	grub_err_t (*fs_close)(struct grub_file *file);
	grub_err_t (*fs_label)(struct grub_device *device, char **label);
	grub_err_t (*fs_uuid)(struct grub_device *device, char **uuid);
	grub_err_t (*fs_mtime)(struct grub_device *device, int64_t *timebuf);
};
extern struct grub_fs *grub_fs_list;
struct grub_fs *grub_fs_probe(struct grub_device *device);

/* include/grub/file.h: the beginning of the structure. */
struct grub_file {
	char *name;
	struct grub_device *device;
	struct grub_fs *fs;
	uint64_t offset;
	uint64_t progress_offset;
	uint64_t last_progress_time;
	uint64_t last_progress_offset;
	uint64_t estimated_speed;
	uint64_t size;
	int not_easily_seekable;
	void *data;
};
enum { GRUB_FILE_TYPE_NONE = 0 };
struct grub_file *grub_file_open(const char *name, int type);
long grub_file_read(struct grub_file *file, void *buf, size_t len);
grub_err_t grub_file_close(struct grub_file *file);

/* UEFI 2.10, 4.2 to 4.6, 8.5.1 (ResetSystem), 12.4.3 (OutputString): what the firmware hands over. */
#define EFIAPI __attribute__((ms_abi))
struct efi_table_header {
	uint64_t signature;
	uint32_t revision, size, crc32, reserved;
};
struct efi_text_output { /* the beginning of the structure */
	void *reset;
	uint64_t(EFIAPI *output_string)(struct efi_text_output *this, const uint16_t *text);
};
struct efi_runtime_services {
	struct efi_table_header hdr;
	void *time[4], *virtual_memory[2], *variable[3], *get_next_high_monotonic_count;
	void(EFIAPI *reset_system)(int type, uint64_t status, uint64_t size, void *data);
};
enum { EFI_RESET_SHUTDOWN = 2 };
struct efi_configuration_table {
	uint8_t guid[16];
	void *table;
};
struct efi_system_table {
	struct efi_table_header hdr;
	void *firmware_vendor;
	uint32_t firmware_revision;
	void *console_in_handle, *con_in, *console_out_handle;
	struct efi_text_output *con_out;
	void *standard_error_handle, *std_err;
	struct efi_runtime_services *runtime_services;
	void *boot_services;
	uint64_t tables;
	struct efi_configuration_table *table;
};
extern struct efi_system_table *grub_efi_system_table; /* include/grub/efi/efi.h */

#endif
