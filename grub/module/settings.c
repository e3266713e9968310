/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "settings.h"

#include "bytes.h"

/* A setting: its name, and where its value goes. */
struct setting {
	const char *name;
	char *value;
	size_t size; /* of value, with the NUL */
	int set;
};

/* Reads one line name='value' of the given length. */
static const char *read_line(const char *line, size_t size, struct setting *settings, unsigned count)
{
	unsigned i;
	for (i = 0; i < count; i++) {
		struct setting *s = &settings[i];
		size_t name = length(s->name);
		const char *value = line + name + 2;
		size_t j, value_size;
		if (size < name + 3 || !same(line, s->name, name) || line[name] != '=')
			continue;
		if (s->set)
			return "settings: a name stands there twice";
		if (line[name + 1] != '\'' || line[size - 1] != '\'')
			return "settings: a value is not in quotes";
		value_size = size - name - 3;
		if (value_size >= s->size)
			return "settings: a value is too long";
		for (j = 0; j < value_size; j++)
			if (!printable(value[j]) || value[j] == '\'')
				return "settings: a value holds a character that must not be there";
		copy(s->value, value, value_size);
		s->value[value_size] = 0;
		s->set = 1;
		return NULL;
	}
	return "settings: a line that is not known";
}

const char *settings_read(const char *text, size_t size, struct settings *out)
{
	char version[2], serial[2];
	struct setting settings[] = {
		{"version", version, sizeof version, 0},
		{"disk_uuid", out->disk_uuid, sizeof out->disk_uuid, 0},
		{"append", out->append, sizeof out->append, 0},
		{"serial", serial, sizeof serial, 0},
	};
	const unsigned count = sizeof settings / sizeof settings[0];
	size_t start = 0, end;
	unsigned i;

	wipe(out, sizeof *out);
	if (size == 0 || text[size - 1] != '\n')
		return "settings: they do not end with a line's end";
	for (; start < size; start = end + 1) {
		const char *problem;
		for (end = start; text[end] != '\n'; end++)
			;
		if (end == start || text[start] == '#')
			continue;
		problem = read_line(text + start, end - start, settings, count);
		if (problem)
			return problem;
	}
	for (i = 0; i < count; i++)
		if (!settings[i].set)
			return "settings: one is missing";
	if (version[0] != '1' || version[1] != 0)
		return "settings: they are of another version";
	if (out->disk_uuid[0] && length(out->disk_uuid) != UUID_LENGTH)
		return "settings: disk_uuid is no UUID";
	if ((serial[0] != '0' && serial[0] != '1') || serial[1] != 0)
		return "settings: serial is neither 0 nor 1";
	out->serial = serial[0] == '1';
	return NULL;
}
