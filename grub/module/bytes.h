/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bytes and strings, without any library: this header serves GRUB and the tests' host alike. */
#ifndef SEALBOOT_BYTES_H
#define SEALBOOT_BYTES_H

#include <stddef.h>
#include <stdint.h>

static inline int same(const void *a, const void *b, size_t size)
{
	const unsigned char *p = a, *q = b;
	while (size-- > 0)
		if (*p++ != *q++)
			return 0;
	return 1;
}

static inline int all_zero(const void *a, size_t size)
{
	const unsigned char *p = a;
	while (size-- > 0)
		if (*p++ != 0)
			return 0;
	return 1;
}

static inline void copy(void *to, const void *from, size_t size)
{
	unsigned char *p = to;
	const unsigned char *q = from;
	while (size-- > 0)
		*p++ = *q++;
}

/* wipe may not be left out by the compiler, even where nothing reads the memory again. */
static inline void wipe(void *a, size_t size)
{
	volatile unsigned char *p = a;
	while (size-- > 0)
		*p++ = 0;
}

static inline size_t length(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

static inline int begins(const char *s, const char *start)
{
	while (*start)
		if (*s++ != *start++)
			return 0;
	return 1;
}

static inline int printable(int c) { return c >= 0x20 && c <= 0x7e; }
static inline int digit(int c) { return c >= '0' && c <= '9'; }
static inline int letter(int c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

#endif
