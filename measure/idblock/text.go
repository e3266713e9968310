package idblock

import (
	"encoding/base64"
	"fmt"
	"strings"
)

// MaxText bounds what ParseText takes.
const MaxText = 16 << 10

// Text gives both blocks as snp-create-id-block prints them: a first line to be put behind QEMU's "-object sev-snp-guest,…,",
// then the keys' digests. With an author key QEMU also wants author-key-enabled=on.
func Text(b Block, a *Auth) (string, error) {
	block, err := b.Encode()
	if err != nil {
		return "", err
	}
	id, err := KeyDigest(a.IDKey)
	if err != nil {
		return "", err
	}
	text := fmt.Sprintf("id-block=%s,id-auth=%s\nid_key_hash: %s\n", b64(block), b64(a.raw[:]), b64(id[:]))
	if a.AuthorKey == nil {
		return text, nil
	}
	author, err := KeyDigest(a.AuthorKey)
	if err != nil {
		return "", err
	}
	return text + fmt.Sprintf("author_key: %s\n", b64(author[:])), nil
}

// ParseText reads the first line of what Text or snp-create-id-block gave. Digests on further lines are compared with the keys.
func ParseText(text string) (Block, *Auth, error) {
	fail := func(err error) (Block, *Auth, error) { return Block{}, nil, err }
	if len(text) > MaxText {
		return fail(fmt.Errorf("%w: more than %d bytes of text", ErrFormat, MaxText))
	}
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	var b Block
	var a *Auth
	for field := range strings.SplitSeq(strings.TrimSpace(lines[0]), ",") {
		name, value, _ := strings.Cut(field, "=")
		raw, err := base64.StdEncoding.Strict().DecodeString(value)
		switch {
		case name == "id-block" && b == Block{} && err == nil:
			if b, err = ParseBlock(raw); err != nil {
				return fail(err)
			}
		case name == "id-auth" && a == nil && err == nil:
			if a, err = ParseAuth(raw); err != nil {
				return fail(err)
			}
		default:
			return fail(fmt.Errorf("%w: not id-block=BASE64,id-auth=BASE64", ErrFormat))
		}
	}
	if a == nil || b == (Block{}) {
		return fail(fmt.Errorf("%w: one of id-block and id-auth is missing", ErrFormat))
	}
	want, err := Text(b, a)
	if err != nil {
		return fail(err)
	}
	said := strings.Split(strings.TrimSuffix(want, "\n"), "\n")
	for i, line := range lines[1:] {
		if i+1 >= len(said) || strings.TrimSpace(line) != said[i+1] {
			return fail(fmt.Errorf("%w: line %d is not the digest of the key in id-auth", ErrFormat, i+2))
		}
	}
	return b, a, nil
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }
