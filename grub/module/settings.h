/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The settings in (memdisk)/grub.cfg: lines name='value', comments (#) and nothing else.
 * Config.Text in config.go writes them. They are part of the measured GRUB.
 */
#ifndef SEALBOOT_SETTINGS_H
#define SEALBOOT_SETTINGS_H

#include <stddef.h>

enum {
	SETTINGS_MAX = 8192, /* bytes of the file */
	APPEND_MAX = 1536,   /* Linux takes 2047 in all (COMMAND_LINE_SIZE, arch/x86) */
	UUID_LENGTH = 36,
};

struct settings {
	char disk_uuid[UUID_LENGTH + 1]; /* "": the only LUKS2 disk that there is */
	char append[APPEND_MAX + 1];
	int serial; /* write to the first serial port, too */
};

/* What is wrong with the text, for the console; NULL if nothing. */
const char *settings_read(const char *text, size_t size, struct settings *out);

#endif
