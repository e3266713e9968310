/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef SEALBOOT_CONSOLE_H
#define SEALBOOT_CONSOLE_H

/* Turns every keyboard off: whatever happens later, nobody can type. */
void console_no_keys(void);
/* Also writes to the first serial port from now on. */
void console_serial(void);
/* Prints a line "sealboot: " + the text; bytes that do not print come out as '?'. */
void console_say(const char *format, ...) __attribute__((format(printf, 1, 2)));
void console_say_v(const char *format, __builtin_va_list args);
/* Turns the machine off. */
void console_power_off(void) __attribute__((noreturn));

#endif
