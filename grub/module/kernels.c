/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "kernels.h"

#include "bytes.h"

/*
 * Debian, Fedora, Arch, SUSE; Gentoo. In order of preference where one version has several.
 * Not vmlinux-: on x86 that is the kernel as an ELF file, which GRUB's linux does not take.
 */
const struct kernel_name kernel_names[] = {{"vmlinuz-", ""}, {"kernel-", ""}, {NULL, NULL}};
/* Debian; Fedora, Arch; SUSE. */
const struct kernel_name initrd_names[] = {{"initrd.img-", ""}, {"initramfs-", ".img"}, {"initrd-", ""}, {NULL, NULL}};

static int version_valid(const char *v, size_t size)
{
	size_t i;
	if (size == 0 || size > VERSION_MAX)
		return 0;
	for (i = 0; i < size; i++)
		if (!letter(v[i]) && !digit(v[i]) && v[i] != '.' && v[i] != '-' && v[i] != '_' && v[i] != '+' && v[i] != '~')
			return 0;
	return letter(v[0]) || digit(v[0]);
}

/* Takes the version out of a file's name, if that has the form before + version + after. */
static int version_of(const char *file, const struct kernel_name *name, char *version)
{
	size_t all = length(file), before = length(name->before), after = length(name->after);
	if (all <= before + after || !begins(file, name->before) || !same(file + all - after, name->after, after))
		return 0;
	all -= before + after;
	if (!version_valid(file + before, all))
		return 0;
	copy(version, file + before, all);
	version[all] = 0;
	return 1;
}

static struct kernel *find(struct kernels *k, const char *version)
{
	int i;
	for (i = 0; i < k->count; i++)
		if (length(k->kernel[i].version) == length(version) && begins(version, k->kernel[i].version))
			return &k->kernel[i];
	return NULL;
}

void kernels_add_initramfs(struct kernels *k, const char *file)
{
	static const struct kernel_name ours = {"initramfs-", ""};
	char version[VERSION_MAX + 1];
	struct kernel *new;
	if (!version_of(file, &ours, version) || find(k, version))
		return;
	if (k->count == KERNELS_MAX) {
		k->overflow = 1;
		return;
	}
	new = &k->kernel[k->count++];
	copy(new->version, version, sizeof version);
	new->name = new->initrd = 0;
}

void kernels_add_boot(struct kernels *k, const char *file)
{
	char version[VERSION_MAX + 1];
	struct kernel *kernel;
	int i;
	for (i = 0; kernel_names[i].before; i++) {
		if (!version_of(file, &kernel_names[i], version))
			continue;
		kernel = find(k, version);
		if (kernel && (kernel->name == 0 || kernel->name > i + 1))
			kernel->name = i + 1;
		if (!kernel && (!k->without[0] || version_compare(version, k->without) > 0))
			copy(k->without, version, sizeof version);
	}
	for (i = 0; initrd_names[i].before; i++) {
		if (!version_of(file, &initrd_names[i], version))
			continue;
		kernel = find(k, version);
		if (kernel && (kernel->initrd == 0 || kernel->initrd > i + 1))
			kernel->initrd = i + 1;
	}
}

const struct kernel *kernels_newest(const struct kernels *k)
{
	const struct kernel *newest = NULL;
	int i;
	for (i = 0; i < k->count; i++)
		if (k->kernel[i].name && (!newest || version_compare(k->kernel[i].version, newest->version) > 0))
			newest = &k->kernel[i];
	return newest;
}

/* The character at v[i], in which a separator before a word for "not yet released" counts as '~'. */
static int character(const char *v, size_t i)
{
	static const char *const words[] = {"rc", "pre", "test", "git", "old", "trunk"};
	unsigned w;
	if (v[i] == '.' || v[i] == '-' || v[i] == '_')
		for (w = 0; w < sizeof words / sizeof words[0]; w++)
			if (begins(v + i + 1, words[w]))
				return '~';
	return v[i];
}

/* The order of what is no digit (Debian policy 5.6.12): '~', the end, letters, all else. */
static int order(int c)
{
	if (c == 0 || digit(c))
		return 0;
	if (c == '~')
		return -1;
	return letter(c) ? c : c + 256;
}

int version_compare(const char *a, const char *b)
{
	size_t i = 0, j = 0, k;
	while (a[i] || b[j]) {
		int first = 0;
		while ((a[i] && !digit(a[i])) || (b[j] && !digit(b[j]))) {
			int x = order(character(a, i)), y = order(character(b, j));
			if (x != y)
				return x < y ? -1 : 1;
			/* Equal: both stand on a character that is no digit. */
			i++, j++;
		}
		while (a[i] == '0')
			i++;
		while (b[j] == '0')
			j++;
		for (; digit(a[i]) && digit(b[j]); i++, j++)
			if (!first && a[i] != b[j])
				first = a[i] < b[j] ? -1 : 1;
		if (digit(a[i]) || digit(b[j]))
			return digit(a[i]) ? 1 : -1;
		if (first)
			return first;
	}
	/* Equal by value (6.01 and 6.1): some order is needed, and it must always be the same. */
	for (k = 0; a[k] && a[k] == b[k]; k++)
		;
	return a[k] == b[k] ? 0 : a[k] < b[k] ? -1 : 1;
}
