package auditlog

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// MaxNote is the length of the longest checkpoint that is read: there is room for signatures of witnesses.
const MaxNote = 16 << 10

// Errors of checkpoints and keys.
var (
	ErrNote      = errors.New("not a checkpoint of an audit")
	ErrSignature = errors.New("checkpoint is not signed by that key")
	ErrPublicKey = errors.New("not a public key of an audit")
)

// Checkpoint is a head that was signed.
type Checkpoint struct {
	Head
	Time time.Time // whole seconds, UTC
}

// algorithm is signed-note's byte for Ed25519 (C2SP signed-note, "Signature types").
const algorithm = 0x01

// PublicKey checks signatures. It names one log.
type PublicKey struct {
	key ed25519.PublicKey
}

// Origin is the name of the log: "sealboot-audit-" and the first 8 bytes of the public key's SHA-256 in hex.
func (p PublicKey) Origin() string {
	digest := sha256.Sum256(p.key)
	return "sealboot-audit-" + hex.EncodeToString(digest[:8])
}

// keyHash is the key's id in a signature line: SHA-256 of name, line end, algorithm and key, its first 4 bytes.
func keyHash(name string, key ed25519.PublicKey) []byte {
	digest := sha256.Sum256(append([]byte(name+"\n"+string(rune(algorithm))), key...))
	return digest[:4]
}

// String gives the key in signed-note's text form: name, key hash, and algorithm with key in base64, with '+' between.
func (p PublicKey) String() string {
	name := p.Origin()
	return fmt.Sprintf("%s+%x+%s", name, keyHash(name, p.key), base64.StdEncoding.EncodeToString(append([]byte{algorithm}, p.key...)))
}

// ParsePublicKey reads the text form.
func ParsePublicKey(text string) (PublicKey, error) {
	_, encoded, _ := strings.Cut(text, "+")
	_, encoded, _ = strings.Cut(encoded, "+")
	b, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) != 1+ed25519.PublicKeySize || b[0] != algorithm {
		return PublicKey{}, fmt.Errorf("%w: want NAME+HASH+BASE64, as sealboot keyserver audit public-key prints it", ErrPublicKey)
	}
	p := PublicKey{key: b[1:]}
	if p.String() != text {
		return PublicKey{}, fmt.Errorf("%w: its name or hash is not the key's", ErrPublicKey)
	}
	return p, nil
}

// Signer signs checkpoints.
type Signer struct {
	key ed25519.PrivateKey
}

// NewSigner takes the 32 bytes of an Ed25519 seed. The caller may wipe them afterwards.
func NewSigner(seed []byte) (*Signer, error) {
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("seed of %d bytes, not %d", len(seed), ed25519.SeedSize)
	}
	return &Signer{key: ed25519.NewKeyFromSeed(seed)}, nil
}

// PublicKey gives the key that checks what the signer signs.
func (s *Signer) PublicKey() PublicKey {
	return PublicKey{key: s.key.Public().(ed25519.PublicKey)}
}

// Sign gives the signed note. The same checkpoint gives the same bytes.
func (s *Signer) Sign(c Checkpoint) []byte {
	p := s.PublicKey()
	text := c.text(p.Origin())
	return signNote(text, p.Origin(), s.key)
}

func signNote(text, name string, key ed25519.PrivateKey) []byte {
	signature := append(keyHash(name, key.Public().(ed25519.PublicKey)), ed25519.Sign(key, []byte(text))...)
	return []byte(text + "\n" + signaturePrefix + name + " " + base64.StdEncoding.EncodeToString(signature) + "\n")
}

// signaturePrefix begins a signature line: an em dash and a space.
const signaturePrefix = "\u2014 "

const timePrefix = "time "

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func (c Checkpoint) text(origin string) string {
	return fmt.Sprintf("%s\n%d\n%s\n%s%s\n", origin, c.Size, base64.StdEncoding.EncodeToString(c.Hash[:]), timePrefix, stamp(c.Time))
}

// Open checks the note's signature and reads the checkpoint. Signatures of others may stand in it: they are passed over.
func (p PublicKey) Open(note []byte) (Checkpoint, error) {
	text, err := openNote(note, p.Origin(), p.key)
	if err != nil {
		return Checkpoint{}, err
	}
	return parseText(text, p.Origin())
}

// openNote gives the text of a note that has exactly one signature by the key, and it holds.
func openNote(note []byte, name string, key ed25519.PublicKey) (string, error) {
	end := bytes.LastIndex(note, []byte("\n\n"))
	if len(note) > MaxNote || end < 0 || !bytes.HasSuffix(note, []byte("\n")) || !utf8.Valid(note) {
		return "", fmt.Errorf("%w: not a signed note of at most %d bytes", ErrNote, MaxNote)
	}
	text, lines := note[:end+1], string(note[end+2:])
	found := 0
	for line := range strings.Lines(lines) {
		line, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), signaturePrefix)
		signer, encoded, cut := strings.Cut(line, " ")
		signature, err := base64.StdEncoding.Strict().DecodeString(encoded)
		if !ok || !cut || signer == "" || err != nil || len(signature) < 5 {
			return "", fmt.Errorf("%w: a signature line does not read", ErrNote)
		}
		if signer != name || !bytes.Equal(signature[:4], keyHash(name, key)) {
			continue
		}
		if found++; !ed25519.Verify(key, text, signature[4:]) {
			return "", ErrSignature
		}
	}
	if found != 1 {
		return "", fmt.Errorf("%w: it has %d signatures of %s", ErrSignature, found, name)
	}
	return string(text), nil
}

// parseText reads what text writes, and nothing else.
func parseText(text, origin string) (Checkpoint, error) {
	lines := strings.Split(text, "\n")
	if len(lines) != 5 {
		return Checkpoint{}, fmt.Errorf("%w: text of %d lines", ErrNote, len(lines)-1)
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 {
		return Checkpoint{}, fmt.Errorf("%w: number of rows does not read", ErrNote)
	}
	hash, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(hash) != len(Hash{}) {
		return Checkpoint{}, fmt.Errorf("%w: hash does not read", ErrNote)
	}
	at, err := time.Parse(time.RFC3339, strings.TrimPrefix(lines[3], timePrefix))
	if err != nil {
		return Checkpoint{}, fmt.Errorf("%w: time does not read", ErrNote)
	}
	c := Checkpoint{Head: Head{Size: size, Hash: Hash(hash)}, Time: at.UTC()}
	if c.text(origin) != text {
		return Checkpoint{}, fmt.Errorf("%w: text is not in its shortest form", ErrNote)
	}
	return c, nil
}
