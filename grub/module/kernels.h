/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Which kernel to start: of those in /boot that have an initramfs of ours in
 * /boot/sealboot, the one with the highest version. A newer one without it is passed over.
 */
#ifndef SEALBOOT_KERNELS_H
#define SEALBOOT_KERNELS_H

#include <stddef.h>

enum {
	VERSION_MAX = 127, /* characters of a version */
	KERNELS_MAX = 64,  /* initramfs files of ours */
};

struct kernel {
	char version[VERSION_MAX + 1];
	int name;   /* which of the kernels' names the file has, from 1; 0: there is none */
	int initrd; /* which of the names for a distribution's initrd, from 1; 0: there is none */
};

struct kernels {
	struct kernel kernel[KERNELS_MAX];
	int count;
	char without[VERSION_MAX + 1]; /* the newest kernel that has no initramfs of ours, or "" */
	int overflow;                  /* more than KERNELS_MAX */
};

/* Takes the name of a file in /boot/sealboot. All of these come before those of /boot. */
void kernels_add_initramfs(struct kernels *k, const char *file);
/* Takes the name of a file in /boot. */
void kernels_add_boot(struct kernels *k, const char *file);
/* The one to start, or NULL. */
const struct kernel *kernels_newest(const struct kernels *k);

/* File names in /boot: "vmlinuz-" + version + "". */
struct kernel_name {
	const char *before, *after;
};
extern const struct kernel_name kernel_names[], initrd_names[];

/*
 * Compares versions as dpkg and sort -V do: numbers by value, 6.10 after 6.9; a release
 * candidate (rc, pre, test, git, old, trunk, behind one of . - _) before its release.
 */
int version_compare(const char *a, const char *b);

#endif
