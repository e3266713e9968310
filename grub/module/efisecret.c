/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * efisecret: the whole way from power-on to the kernel, as one GRUB module that never
 * gives control back.
 *
 * GRUB initialises its embedded modules in order, this one last, and only then would it
 * look for a configuration, normal mode, or its rescue prompt. The module does its work in
 * its own initialisation and ends in the kernel or in power-off: no parser of GRUB's runs,
 * no module is loaded from a disk, no prompt is ever reached, whatever fails. Before
 * anything else the console is taken from GRUB: no key is read, no text but ours printed.
 *
 * This file includes the others, so that the module is one object without a linker.
 */
#include "bytes.h"
#include "grub.h"

#include "console.c"
#include "header.c"
#include "kernels.c"
#include "keyfiles.c"
#include "settings.c"
#include "table.c"

/* GRUB refuses to load a module that does not say that it is free (kern/dl.c). */
static const char license[] __attribute__((section(".module_license"), used)) = "LICENSE=GPLv3+";
static const char name[] __attribute__((section(".modname"), used)) = "efisecret";

static struct table secrets;

static void stop(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* Says why, wipes the secrets and turns the machine off. */
static void stop(const char *format, ...)
{
	char why[384];
	__builtin_va_list args;
	keyfiles_wipe();
	table_delete(&secrets);
	__builtin_va_start(args, format);
	grub_vsnprintf(why, sizeof why, format, args);
	__builtin_va_end(args);
	console_say("stopped: %s", why);
	console_power_off();
}

/* Runs a command of another module. Its error stays in grub_errno. */
static grub_err_t run(const char *command, int argc, char **argv)
{
	struct grub_command *c;
	grub_err_t err;
	for (c = grub_command_list; c; c = c->next)
		if (grub_strcmp(c->name, command) == 0) {
			grub_errno = GRUB_ERR_NONE;
			err = c->func(c, argc, argv);
			if (err == GRUB_ERR_NONE)
				err = grub_errno;
			else if (grub_errno == GRUB_ERR_NONE)
				grub_errno = err;
			return err;
		}
	stop("this GRUB has no command %s", command);
}

static void read_settings(struct settings *settings)
{
	static char text[SETTINGS_MAX];
	struct grub_file *file = grub_file_open("(memdisk)/grub.cfg", GRUB_FILE_TYPE_NONE);
	const char *problem;
	long size;
	if (!file)
		stop("settings: %s", grub_errmsg);
	if (file->size > sizeof text)
		stop("settings: the file is too long");
	size = grub_file_read(file, text, sizeof text);
	if (size < 0 || (uint64_t)size != file->size)
		stop("settings: the file cannot be read");
	grub_file_close(file);
	problem = settings_read(text, (size_t)size, settings);
	if (problem)
		stop("%s", problem);
}

/* Finds the secret area by the firmware's announcement of it, and reads the table there. */
static void find_secrets(void)
{
	/* adf956ad-e98c-484c-ae11-b51c7d336447 (edk2 gConfidentialComputingSecretGuid) */
	static const uint8_t area_guid[16] = {0xad, 0x56, 0xf9, 0xad, 0x8c, 0xe9, 0x4c, 0x48, 0xae, 0x11, 0xb5, 0x1c, 0x7d, 0x33, 0x64, 0x47};
	enum { AREA_MAX = 1 << 20 }; /* bytes; real ones have 3072 */
	const struct efi_system_table *system = grub_efi_system_table;
	struct {
		uint64_t base, size;
	} area = {0, 0};
	const char *problem;
	uint64_t i;
	for (i = 0; i < system->tables; i++)
		if (same(system->table[i].guid, area_guid, sizeof area_guid)) {
			copy(&area, system->table[i].table, sizeof area);
			break;
		}
	if (i == system->tables)
		stop("no secret: this firmware has no secret area");
	if (area.base == 0 || area.size == 0 || area.size > AREA_MAX || area.base > UINT64_MAX - area.size)
		stop("no secret: the firmware's secret area has an impossible place or size");
	problem = table_read((uint8_t *)(uintptr_t)area.base, area.size, &secrets);
	if (problem)
		stop("%s", problem);
}

/* A LUKS2 disk with the UUID that the settings ask for. */
struct luks_disk {
	const char *want; /* "": any */
	char name[64], uuid[UUID_LENGTH + 1];
	int found, other;
};

static int look_at_disk(const char *disk_name, void *data)
{
	struct luks_disk *luks = data;
	uint8_t sector[512];
	char uuid[UUID_LENGTH + 1];
	struct grub_disk *d = grub_disk_open(disk_name);
	int read = d && grub_disk_read(d, 0, 0, sizeof sector, sector) == GRUB_ERR_NONE;
	if (d)
		grub_disk_close(d);
	grub_errno = GRUB_ERR_NONE;
	if (!read || !header_size(sector) || !header_uuid(sector, uuid) || length(disk_name) >= sizeof luks->name)
		return 0;
	if (luks->want[0] && !same(luks->want, uuid, UUID_LENGTH)) {
		luks->other = 1;
		return 0;
	}
	luks->found++;
	copy(luks->name, disk_name, length(disk_name) + 1);
	copy(luks->uuid, uuid, sizeof uuid);
	return 0;
}

static void find_disk(const struct settings *settings, struct luks_disk *luks)
{
	wipe(luks, sizeof *luks);
	luks->want = settings->disk_uuid;
	grub_device_iterate(look_at_disk, luks);
	if (luks->found > 1)
		stop("%d disks are LUKS2 disks%s%s, and only one may be", luks->found, luks->want[0] ? " with the UUID " : "", luks->want);
	if (luks->found == 0 && luks->want[0])
		stop("no disk: none is a LUKS2 disk with the UUID %s%s", luks->want, luks->other ? " (there is one with another)" : "");
	if (luks->found == 0)
		stop("no disk: none is a LUKS2 disk");
}

/* Copies the disk's header, judges the copy, and shows it to cryptomount. */
static void copy_header(const struct luks_disk *luks)
{
	struct grub_disk *d = grub_disk_open(luks->name);
	uint8_t *copied = grub_malloc(HEADER_MAX);
	struct header header;
	const char *problem;
	uint64_t size;
	if (!d || !copied || grub_disk_read(d, 0, 0, HEADER_BINARY, copied) != GRUB_ERR_NONE)
		stop("read the header of the disk %s: %s", luks->uuid, grub_errmsg);
	size = 2 * header_size(copied);
	if (size == 0)
		stop("the header of the disk %s is not accepted: LUKS2 header: the first copy is damaged", luks->uuid);
	/* The disk may answer otherwise now: only what is read here is judged and used. */
	if (grub_disk_read(d, 0, 0, size, copied) != GRUB_ERR_NONE)
		stop("read the header of the disk %s: %s", luks->uuid, grub_errmsg);
	problem = header_check(copied, size, &header);
	if (problem)
		stop("the header of the disk %s is not accepted: %s", luks->uuid, problem);
	if (!same(header.uuid, luks->uuid, sizeof header.uuid))
		stop("the header of the disk %s is not accepted: it changes from one reading to the next", luks->uuid);
	if (header.end > size && grub_disk_read(d, size >> 9, 0, header.end - size, copied + size) != GRUB_ERR_NONE)
		stop("read the key slots of the disk %s: %s", luks->uuid, grub_errmsg);
	grub_disk_close(d);
	keyfiles_show_header(copied, (uint32_t)header.end);
}

/* Unlocks the disk as (crypto0), if the passphrase in the file is the right one. */
static int opens(char *file, struct luks_disk *luks)
{
	char *arguments[] = {"-k", file, "-H", KEYFILES_HEADER, luks->name};
	grub_err_t err = run("cryptomount", 5, arguments);
	keyfiles_wipe_readers();
	if (err != GRUB_ERR_NONE && err != GRUB_ERR_ACCESS_DENIED)
		stop("unlock the disk %s: %s", luks->uuid, grub_errmsg);
	return err == GRUB_ERR_NONE;
}

/*
 * While the passphrase is being changed, the previous one is there too: the disk's key slots may be
 * changed before or after the key server's record of them. Only that case costs a second stretching.
 */
static void unlock(struct luks_disk *luks)
{
	int changing = secrets.previous.start != NULL;
	int current = opens(KEYFILES_PASSPHRASE, luks);
	if (!current && !changing)
		stop("wrong passphrase: it does not open the disk %s", luks->uuid);
	if (!current && !opens(KEYFILES_PREVIOUS, luks))
		stop("wrong passphrase: neither the new nor the previous one opens the disk %s", luks->uuid);
	keyfiles_use(!current);
	if (changing)
		console_say("the disk %s was opened by the %s passphrase", luks->uuid, current ? "new" : "previous");
}

static int add_initramfs(const char *file, const struct grub_dirhook_info *info, void *data)
{
	if (!info->dir)
		kernels_add_initramfs(data, file);
	return 0;
}

static int add_boot(const char *file, const struct grub_dirhook_info *info, void *data)
{
	if (!info->dir)
		kernels_add_boot(data, file);
	return 0;
}

static const struct kernel *find_kernel(void)
{
	static struct kernels kernels;
	const struct kernel *newest;
	struct grub_device *device = grub_device_open("crypto0");
	struct grub_fs *fs = device ? grub_fs_probe(device) : NULL;
	if (!fs)
		stop("the unlocked disk: %s", grub_errmsg);
	if (fs->fs_dir(device, "/boot/sealboot", add_initramfs, &kernels) != GRUB_ERR_NONE)
		stop("no kernel: /boot/sealboot: %s", grub_errmsg);
	if (fs->fs_dir(device, "/boot", add_boot, &kernels) != GRUB_ERR_NONE)
		stop("no kernel: /boot: %s", grub_errmsg);
	grub_device_close(device);
	if (kernels.overflow)
		stop("no kernel: more than %d files in /boot/sealboot", KERNELS_MAX);
	newest = kernels_newest(&kernels);
	if (!newest && kernels.without[0])
		stop("no kernel: %s has no /boot/sealboot/initramfs-%s", kernels.without, kernels.without);
	if (!newest)
		stop("no kernel in /boot");
	if (kernels.without[0] && version_compare(kernels.without, newest->version) > 0)
		console_say("passing over kernel %s, which has no /boot/sealboot/initramfs-%s", kernels.without, kernels.without);
	return newest;
}

/* Gives the kernel to the linux command. */
static void load_kernel(const struct kernel *kernel, const struct luks_disk *luks, struct settings *settings)
{
	enum { FIXED = 8 };
	static char path[VERSION_MAX + 64], disk_argument[UUID_LENGTH + 32];
	static char *arguments[FIXED + APPEND_MAX];
	const struct kernel_name *n = &kernel_names[kernel->name - 1];
	char *c = settings->append;
	int argc = FIXED;
	grub_snprintf(path, sizeof path, "(crypto0)/boot/%s%s%s", n->before, kernel->version, n->after);
	grub_snprintf(disk_argument, sizeof disk_argument, "sealboot.disk=%s", luks->uuid);
	arguments[0] = path;
	arguments[1] = "root=/dev/mapper/sealboot-root";
	arguments[2] = "rdinit=/sealboot/agent";
	arguments[3] = disk_argument;
	arguments[4] = "ro";
	/*
	 * What would take the host's word: an initramfs resumes from whatever swap device holds an image of memory, and
	 * systemd mounts /home, /srv and /var and swaps to any partition of the root's disk that has their type
	 * (systemd-gpt-auto-generator(8)), and takes files, users and units from SMBIOS and fw_cfg (systemd.system-credentials(7)).
	 */
	arguments[5] = "nohibernate";
	arguments[6] = "systemd.gpt_auto=no";
	arguments[7] = "systemd.import_credentials=no";
	while (*c) {
		while (*c == ' ')
			*c++ = 0;
		if (*c)
			arguments[argc++] = c;
		while (*c && *c != ' ')
			c++;
	}
	if (run("linux", argc, arguments) != GRUB_ERR_NONE)
		stop("kernel %s: %s", kernel->version, grub_errmsg);
}

/* Gives the initramfs to the initrd command: the distribution's, ours, and the secrets. */
static void load_initrd(const struct kernel *kernel)
{
	static char distribution[VERSION_MAX + 64], ours[VERSION_MAX + 64];
	char *arguments[6];
	int argc = 0;
	if (kernel->initrd) {
		const struct kernel_name *n = &initrd_names[kernel->initrd - 1];
		grub_snprintf(distribution, sizeof distribution, "(crypto0)/boot/%s%s%s", n->before, kernel->version, n->after);
		arguments[argc++] = distribution;
	}
	grub_snprintf(ours, sizeof ours, "(crypto0)/boot/sealboot/initramfs-%s", kernel->version);
	arguments[argc++] = ours;
	arguments[argc++] = "newc:/sealboot/key/passphrase:" KEYFILES_PASSPHRASE;
	arguments[argc++] = "newc:/sealboot/key/header-pin:" KEYFILES_PIN;
	arguments[argc++] = "newc:/sealboot/key/used:" KEYFILES_USED;
	if (secrets.receipt.start != NULL)
		arguments[argc++] = "newc:/sealboot/key/receipt:" KEYFILES_RECEIPT;
	keyfiles_hand_over();
	if (run("initrd", argc, arguments) != GRUB_ERR_NONE)
		stop("initramfs of kernel %s: %s", kernel->version, grub_errmsg);
}

/* What GRUB calls first: from here on there is no way back. */
static void grub_mod_init(void *module) __attribute__((used));
static void grub_mod_init(void *module)
{
	static struct settings settings;
	static struct luks_disk luks;
	const struct kernel *kernel;
	(void)module;

	console_take();
	read_settings(&settings);
	if (settings.serial)
		console_serial();
	find_secrets();
	keyfiles_show(&secrets);
	find_disk(&settings, &luks);
	copy_header(&luks);
	unlock(&luks);
	kernel = find_kernel();
	load_kernel(kernel, &luks, &settings);
	load_initrd(kernel);
	/*
	 * The kernel's EFI stub asks for the initramfs only once it runs (LoadFile2): the copies
	 * behind the open files stay until it has read them, and are wiped as they are closed.
	 */
	keyfiles_seal();
	table_delete(&secrets);
	console_say("disk unlocked, starting %s", kernel->version);
	run("boot", 0, NULL);
	stop("kernel %s came back: %s", kernel->version, grub_errmsg);
}

static void grub_mod_fini(void) __attribute__((used));
static void grub_mod_fini(void) {}
