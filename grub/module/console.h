/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SEALBOOT_CONSOLE_H
#define SEALBOOT_CONSOLE_H

/*
 * Takes the console from GRUB. Keyboards are off: whatever happens later, nobody can type.
 * Screens are off, too: nothing but this module's lines is printed, and no text of a disk's.
 */
void console_take(void);
/* Also writes to the first serial port from now on. OVMF's console reaches it without that. */
void console_serial(void);
/* Prints a line "sealboot: " + the text; bytes that do not print come out as '?'. */
void console_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void console_say_v(const char *format, __builtin_va_list args);
/* Turns the machine off. */
void console_power_off(void) __attribute__((noreturn));

#endif
