/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "header.h"

#include "bytes.h"

enum {
	KEY_SIZE = 64,
	STRIPES = 4000,
	AREA_MAX = 4 << 20,
	INDEX_MAX = 31, /* key slots; GRUB keeps them as the bits of an int */
	DEPTH_MAX = 8,
};

/* What a value may be. */
enum rule_kind { TEXT, NUMBER, DIGITS, HASH, BASE64, DIGEST, COUNT, INDEX, DYNAMIC, SECTOR, KDF };

struct rule {
	const char *path; /* '*' stands for a number, "[]" for an element */
	enum rule_kind kind;
	const char *is; /* TEXT, NUMBER: exactly that; TEXT and NULL: any */
};

static const struct rule rules[] = {
	{"keyslots/*/type", TEXT, "luks2"},
	{"keyslots/*/key_size", NUMBER, "64"},
	{"keyslots/*/priority", COUNT, NULL},
	{"keyslots/*/area/type", TEXT, "raw"},
	{"keyslots/*/area/offset", DIGITS, NULL},
	{"keyslots/*/area/size", DIGITS, NULL},
	{"keyslots/*/area/encryption", TEXT, "aes-xts-plain64"},
	{"keyslots/*/area/key_size", NUMBER, "64"},
	{"keyslots/*/af/type", TEXT, "luks1"},
	{"keyslots/*/af/stripes", NUMBER, "4000"},
	{"keyslots/*/af/hash", HASH, NULL},
	{"keyslots/*/kdf/type", KDF, NULL},
	{"keyslots/*/kdf/hash", HASH, NULL},
	{"keyslots/*/kdf/iterations", COUNT, NULL},
	{"keyslots/*/kdf/time", COUNT, NULL},
	{"keyslots/*/kdf/memory", COUNT, NULL},
	{"keyslots/*/kdf/cpus", COUNT, NULL},
	{"keyslots/*/kdf/salt", BASE64, NULL},
	{"segments/0/type", TEXT, "crypt"},
	{"segments/0/offset", DIGITS, NULL},
	{"segments/0/size", DYNAMIC, NULL},
	{"segments/0/iv_tweak", TEXT, "0"},
	{"segments/0/encryption", TEXT, "aes-xts-plain64"},
	{"segments/0/sector_size", SECTOR, NULL},
	{"digests/0/type", TEXT, "pbkdf2"},
	{"digests/0/keyslots/[]", INDEX, NULL},
	{"digests/0/segments/[]", TEXT, "0"},
	{"digests/0/hash", HASH, NULL},
	{"digests/0/iterations", COUNT, NULL},
	{"digests/0/salt", BASE64, NULL},
	{"digests/0/digest", DIGEST, NULL},
	{"config/json_size", DIGITS, NULL},
	{"config/keyslots_size", DIGITS, NULL},
	{"config/flags/[]", TEXT, NULL}, /* nothing of GRUB's reads them */
};

struct text {
	const char *at;
	size_t size;
};

/* The state of reading one JSON text. */
struct reader {
	const char *next, *end;
	const char *problem; /* once set, nothing more is read */
	struct text path[DEPTH_MAX];
	int depth;
	uint64_t areas_from, areas_end;    /* where key slots' areas may begin, and where the last ends */
	uint64_t offset, size;             /* of the area being read */
	int has_offset, has_size;
};

static void fail(struct reader *r, const char *problem)
{
	if (!r->problem)
		r->problem = problem;
	r->next = r->end;
}

static int equal(struct text t, const char *s) { return length(s) == t.size && same(t.at, s, t.size); }

static int all_digits(struct text t)
{
	size_t i;
	for (i = 0; i < t.size; i++)
		if (!digit(t.at[i]))
			return 0;
	return t.size > 0 && t.size <= 15; /* below 2^50 */
}

static uint64_t value_of(struct text t)
{
	uint64_t n = 0;
	size_t i;
	for (i = 0; i < t.size; i++)
		n = n * 10 + (uint64_t)(t.at[i] - '0');
	return n;
}

static int is_index(struct text t) { return all_digits(t) && t.size <= 2 && value_of(t) <= INDEX_MAX; }

static int is_base64(struct text t)
{
	size_t i, n = t.size;
	if (n == 0 || n % 4 != 0 || n > 88) /* 64 bytes; GRUB has room for 128 */
		return 0;
	while (n > t.size - 2 && t.at[n - 1] == '=')
		n--;
	for (i = 0; i < n; i++)
		if (!letter(t.at[i]) && !digit(t.at[i]) && t.at[i] != '+' && t.at[i] != '/')
			return 0;
	return 1;
}

/* Whether the path that is being read is the rule's. */
static int on_path(const struct reader *r, const char *rule)
{
	int i;
	for (i = 0; i < r->depth; i++) {
		size_t n = 0;
		struct text want;
		while (rule[n] && rule[n] != '/')
			n++;
		want.at = rule;
		want.size = n;
		if (n == 1 && rule[0] == '*' ? !is_index(r->path[i]) : want.size != r->path[i].size || !same(want.at, r->path[i].at, n))
			return 0;
		rule += n;
		if (*rule == '/')
			rule++;
		else if (i + 1 < r->depth)
			return 0;
	}
	return *rule == 0;
}

static int allowed(const struct rule *rule, struct text t, int string)
{
	switch (rule->kind) {
	case TEXT:
		return string && (!rule->is || equal(t, rule->is));
	case NUMBER:
		return !string && equal(t, rule->is);
	case DIGITS:
		return string && all_digits(t);
	case HASH:
		return string && (equal(t, "sha256") || equal(t, "sha512"));
	case BASE64:
		return string && is_base64(t);
	case DIGEST: /* 32 bytes of SHA-256, or 64 of SHA-512 */
		return string && is_base64(t) && ((t.size == 44 && t.at[42] != '=' && t.at[43] == '=') || (t.size == 88 && t.at[86] == '='));
	case COUNT:
		return !string && all_digits(t) && t.size <= 9;
	case INDEX:
		return string && is_index(t);
	case DYNAMIC:
		return string && (equal(t, "dynamic") || all_digits(t));
	case SECTOR:
		return !string && (equal(t, "512") || equal(t, "4096"));
	case KDF:
		return string && (equal(t, "pbkdf2") || equal(t, "argon2i") || equal(t, "argon2id"));
	}
	return 0;
}

/* Judges a string or a number that stands where the path says. */
static void scalar(struct reader *r, struct text t, int string)
{
	unsigned i;
	if (r->depth > 0 && equal(r->path[0], "tokens"))
		return; /* nothing of GRUB's reads these */
	for (i = 0; i < sizeof rules / sizeof rules[0]; i++) {
		if (!on_path(r, rules[i].path))
			continue;
		if (!allowed(&rules[i], t, string)) {
			fail(r, "LUKS2 header: a value that is not accepted");
			return;
		}
		if (on_path(r, "keyslots/*/area/offset")) {
			if (r->has_offset)
				fail(r, "LUKS2 header: an area has two places");
			r->offset = value_of(t);
			r->has_offset = 1;
		}
		if (on_path(r, "keyslots/*/area/size")) {
			if (r->has_size)
				fail(r, "LUKS2 header: an area has two sizes");
			r->size = value_of(t);
			r->has_size = 1;
		}
		return;
	}
	fail(r, "LUKS2 header: a member that is not known");
}

static void begin_area(struct reader *r) { r->has_offset = r->has_size = 0; }

static void end_area(struct reader *r)
{
	if (!r->has_offset || !r->has_size)
		fail(r, "LUKS2 header: an area has no place or size");
	else if (r->size < KEY_SIZE * STRIPES || r->size > AREA_MAX || r->size % 512 != 0)
		fail(r, "LUKS2 header: an area of an impossible size");
	else if (r->offset < r->areas_from || r->offset % 512 != 0 || r->offset > HEADER_MAX - r->size)
		fail(r, "LUKS2 header: an area at an impossible place");
	else if (r->offset + r->size > r->areas_end)
		r->areas_end = r->offset + r->size;
}

static int peek(struct reader *r)
{
	while (r->next < r->end && (*r->next == ' ' || *r->next == '\n' || *r->next == '\r' || *r->next == '\t'))
		r->next++;
	return r->next < r->end ? *r->next : 0;
}

static int take(struct reader *r, char c)
{
	if (peek(r) != c)
		return 0;
	r->next++;
	return 1;
}

static struct text string(struct reader *r)
{
	struct text t = {r->next, 0};
	if (!take(r, '"')) {
		fail(r, "LUKS2 header: malformed JSON");
		return t;
	}
	for (t.at = r->next; r->next < r->end && *r->next != '"'; r->next++, t.size++)
		if (!printable(*r->next) || *r->next == '\\') {
			fail(r, "LUKS2 header: a character in a string that is not accepted");
			return t;
		}
	if (!take(r, '"'))
		fail(r, "LUKS2 header: malformed JSON");
	return t;
}

static void value(struct reader *r);

/* Reads what stands in braces or brackets, each element under its name or "[]". */
static void elements(struct reader *r, char close)
{
	static const struct text element = {"[]", 2};
	if (take(r, close))
		return;
	if (r->depth == DEPTH_MAX) {
		fail(r, "LUKS2 header: JSON is nested too deeply");
		return;
	}
	do {
		struct text key = element;
		if (close == '}') {
			key = string(r);
			if (!r->problem && !take(r, ':'))
				fail(r, "LUKS2 header: malformed JSON");
		}
		if (r->problem)
			return;
		r->path[r->depth++] = key;
		value(r);
		r->depth--;
		if (r->problem)
			return;
	} while (take(r, ','));
	if (!take(r, close))
		fail(r, "LUKS2 header: malformed JSON");
}

static void value(struct reader *r)
{
	int area = on_path(r, "keyslots/*/area"), c = peek(r);
	struct text t = {r->next, 0};
	if (area)
		begin_area(r);
	if (c == '{' || c == '[') {
		r->next++;
		elements(r, c == '{' ? '}' : ']');
	} else if (c == '"') {
		t = string(r);
		if (!r->problem)
			scalar(r, t, 1);
	} else if (digit(c)) {
		for (; r->next < r->end && digit(*r->next); r->next++)
			t.size++;
		scalar(r, t, 0);
	} else
		fail(r, "LUKS2 header: malformed JSON");
	if (area && !r->problem)
		end_area(r);
}

static uint64_t read_be(const uint8_t *at, int bytes)
{
	uint64_t n = 0;
	while (bytes-- > 0)
		n = n << 8 | *at++;
	return n;
}

/* Places in the binary header. */
enum { AT_VERSION = 6, AT_SIZE = 8, AT_SEQUENCE = 16, AT_UUID = 168, AT_OFFSET = 256 };

static int is_luks2(const uint8_t *start, const char *magic)
{
	return same(start, magic, 4) && start[4] == 0xba && start[5] == 0xbe && read_be(start + AT_VERSION, 2) == 2;
}

uint64_t header_size(const uint8_t *start)
{
	uint64_t size = read_be(start + AT_SIZE, 8), allowed_size;
	if (!is_luks2(start, "LUKS"))
		return 0;
	for (allowed_size = 16 << 10; allowed_size <= 4 << 20; allowed_size *= 2)
		if (size == allowed_size)
			return size;
	return 0;
}

int header_uuid(const uint8_t *start, char *uuid)
{
	unsigned i;
	if (!is_luks2(start, "LUKS") && !is_luks2(start, "SKUL"))
		return 0;
	for (i = 0; i < HEADER_UUID; i++) {
		char c = (char)start[AT_UUID + i];
		if (c >= 'A' && c <= 'F')
			c = (char)(c - 'A' + 'a');
		if (i == 8 || i == 13 || i == 18 || i == 23 ? c != '-' : !digit(c) && (c < 'a' || c > 'f'))
			return 0;
		uuid[i] = c;
	}
	uuid[HEADER_UUID] = 0;
	return start[AT_UUID + HEADER_UUID] == 0;
}

/* Judges one copy of the given size; the areas of its key slots begin behind both copies. */
static const char *check_copy(const uint8_t *start, uint64_t size, uint64_t *areas_end)
{
	struct reader r;
	wipe(&r, sizeof r);
	r.next = (const char *)start + HEADER_BINARY;
	r.end = (const char *)start + size;
	r.areas_from = 2 * size;
	r.areas_end = *areas_end;
	if (peek(&r) != '{')
		fail(&r, "LUKS2 header: malformed JSON");
	else
		value(&r);
	if (r.problem)
		return r.problem;
	if (r.next == r.end || !all_zero(r.next, (size_t)(r.end - r.next)))
		return "LUKS2 header: bytes after the JSON text";
	*areas_end = r.areas_end;
	return NULL;
}

const char *header_check(uint8_t *copies, uint64_t size, struct header *out)
{
	const uint64_t one = size / 2;
	char second[HEADER_UUID + 1];
	struct header h;
	const char *problem;
	int second_newer;

	wipe(out, sizeof *out);
	wipe(&h, sizeof h);
	if (size < 2 * HEADER_BINARY || header_size(copies) != one || size % 2 != 0)
		return "LUKS2 header: the first copy is damaged";
	if (!is_luks2(copies + one, "SKUL") || read_be(copies + one + AT_SIZE, 8) != one)
		return "LUKS2 header: the second copy is damaged";
	if (read_be(copies + AT_OFFSET, 8) != 0 || read_be(copies + one + AT_OFFSET, 8) != one)
		return "LUKS2 header: a copy stands in the wrong place";
	if (!header_uuid(copies, h.uuid) || !header_uuid(copies + one, second) || !same(h.uuid, second, sizeof second))
		return "LUKS2 header: the copies have no UUID in common";
	h.end = size;
	/*
	 * GRUB takes the second copy if its sequence number is the higher one. Only that which
	 * it takes is judged: the other may be half written. It gets number 0, so that there is
	 * no doubt which one is taken.
	 */
	second_newer = read_be(copies + one + AT_SEQUENCE, 8) > read_be(copies + AT_SEQUENCE, 8);
	problem = check_copy(second_newer ? copies + one : copies, one, &h.end);
	if (problem)
		return problem;
	wipe((second_newer ? copies : copies + one) + AT_SEQUENCE, 8);
	*out = h;
	return NULL;
}
