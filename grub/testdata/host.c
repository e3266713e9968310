/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Runs the parts of the module that take bytes from outside on the tests' own machine.
 * Input: u8 kind | u32le size | that many bytes, again and again. Output: one line each.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "header.c"
#include "kernels.c"
#include "settings.c"
#include "table.c"

/* A copy whose end is the end of its allocation, at an odd address. */
static unsigned char *place(const unsigned char *data, size_t size, void **allocated)
{
	unsigned char *p = malloc(size + 1);
	*allocated = p;
	memcpy(p + 1, data, size);
	return p + 1;
}

static void run_table(unsigned char *area, size_t size)
{
	struct table t;
	const struct table_entry *entries[] = {&t.passphrase, &t.previous, &t.pin, &t.receipt};
	size_t i;
	const char *problem = table_read(area, size, &t);
	if (problem) {
		int set = t.passphrase.start || t.previous.start || t.pin.start || t.receipt.start;
		printf("%s%s\n", problem, set ? " (but entries are set)" : "");
		return;
	}
	printf("ok ");
	for (i = 0; i < sizeof entries / sizeof entries[0]; i++) {
		int there = entries[i]->start != NULL;
		printf("%ld %u ", there ? (long)(entry_data(entries[i]) - area) : -1L, there ? entry_data_size(entries[i]) : 0);
	}
	table_delete(&t);
	table_delete(&t); /* a second time does nothing */
	for (i = 0; i < size; i++)
		printf("%02x", area[i]);
	printf("\n");
}

/* Both copies of a header. */
static void run_header(uint8_t *copies, size_t size)
{
	struct header h;
	const char *problem = header_check(copies, size, &h);
	if (problem)
		printf("%s%s\n", problem, h.end || h.uuid[0] ? " (but facts are set)" : "");
	else
		printf("ok %s %lu %u %u\n", h.uuid, (unsigned long)h.end, copies[23], copies[size / 2 + 23]); /* sequence numbers */
}

static void run_settings(const char *text, size_t size)
{
	struct settings s;
	const char *problem = settings_read(text, size, &s);
	if (problem)
		printf("%s\n", problem);
	else
		printf("ok %d|%s|%s\n", s.serial, s.disk_uuid, s.append);
}

/* Lines: "i NAME" for /boot/sealboot, "b NAME" for /boot. */
static void run_kernels(char *lines)
{
	static struct kernels k;
	const struct kernel *newest;
	char *line, *pass;
	memset(&k, 0, sizeof k);
	for (pass = "ib"; *pass; pass++)
		for (line = lines; *line; line += strlen(line) + 1)
			if (line[0] == *pass && line[1] == ' ')
				(*pass == 'i' ? kernels_add_initramfs : kernels_add_boot)(&k, line + 2);
	newest = kernels_newest(&k);
	if (newest)
		printf("%s %d %d %s %d\n", newest->version, newest->name, newest->initrd, k.without, k.overflow);
	else
		printf("- - - %s %d\n", k.without, k.overflow);
}

int main(void)
{
	unsigned char head[5];
	while (fread(head, 1, sizeof head, stdin) == sizeof head) {
		size_t size = head[1] | head[2] << 8 | head[3] << 16 | (size_t)head[4] << 24;
		unsigned char *data = malloc(size + 1), *at;
		void *allocated;
		if (fread(data, 1, size, stdin) != size)
			return 1;
		at = place(data, size, &allocated);
		switch (head[0]) {
		case 't':
			run_table(at, size);
			break;
		case 'h':
			run_header(at, size);
			break;
		case 's':
			run_settings((char *)at, size);
			break;
		case 'v': /* two versions, each with a NUL */
			printf("%d\n", version_compare((char *)at, (char *)at + strlen((char *)at) + 1));
			break;
		case 'k': /* lines, each with a NUL, and one more */
			run_kernels((char *)at);
			break;
		default:
			return 1;
		}
		free(allocated);
		free(data);
		fflush(stdout);
	}
	return 0;
}
