/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "console.h"

#include "bytes.h"
#include "grub.h"

static int serial;

enum {
	UART = 0x3f8,         /* COM1 of a PC */
	UART_LINE_STATUS = 5, /* 16550: the register, */
	UART_SPACE = 0x20,    /* and the bit for "may be written to" */
	UART_PATIENCE = 100000,
};

static inline void out8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port)); }

static inline uint8_t in8(uint16_t port)
{
	uint8_t value;
	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

static void serial_write(char c)
{
	int left = UART_PATIENCE; /* a port that is not there must not stop the boot */
	while (left-- > 0 && !(in8(UART + UART_LINE_STATUS) & UART_SPACE))
		;
	out8(UART, (uint8_t)c);
}

void console_take(void)
{
	grub_term_inputs = grub_term_inputs_disabled = NULL;
	grub_term_outputs = grub_term_outputs_disabled = NULL;
}

void console_serial(void) { serial = 1; }

void console_say_v(const char *format, __builtin_va_list args)
{
	static const char start[] = "sealboot: ";
	char line[512];
	uint16_t wide[sizeof line + 3]; /* UEFI prints UCS-2 */
	struct efi_text_output *screen = grub_efi_system_table->con_out;
	size_t i;
	copy(line, start, sizeof start);
	grub_vsnprintf(line + sizeof start - 1, sizeof line - (sizeof start - 1), format, args);
	/* Names and texts from a disk may stand in it: no escape sequence and no second line. */
	for (i = 0; line[i]; i++) {
		if (!printable((unsigned char)line[i]))
			line[i] = '?';
		wide[i] = (uint16_t)line[i];
	}
	wide[i] = '\r', wide[i + 1] = '\n', wide[i + 2] = 0;
	if (screen)
		screen->output_string(screen, wide);
	if (serial) {
		for (i = 0; line[i]; i++)
			serial_write(line[i]);
		serial_write('\r');
		serial_write('\n');
	}
}

void console_say(const char *format, ...)
{
	__builtin_va_list args;
	__builtin_va_start(args, format);
	console_say_v(format, args);
	__builtin_va_end(args);
}

void console_power_off(void)
{
	grub_efi_system_table->runtime_services->reset_system(EFI_RESET_SHUTDOWN, 0, 0, NULL);
	for (;;)
		__asm__ volatile("cli; hlt");
}
