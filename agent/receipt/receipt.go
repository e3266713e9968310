// Package receipt is the note with which a guest can tell the key server which passphrase opened its disk.
//
// While a passphrase is being changed, the secret table holds the new one, the previous one and a receipt: the id of
// the launch session, and a key that the key server made for this one message. GRUB hands the receipt on beside the
// word "current" or "previous"; the agent writes both to Path, which only root can read and which ends with the machine:
//
//	{"session":"00112233445566778899aabbccddeeff","key":"…","used":"current"}
//
// one line of JSON with these fields in this order: session in 32 lower-case hexadecimal digits, key in base64 (RFC 4648,
// section 4), used one of the two words. Parse takes nothing else, so that two readers cannot differ.
//
// The key opens nothing: who has it can only say, for this one launch, that the new passphrase was used.
package receipt

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
)

// Path is the file that the agent writes, in a folder that only root can enter.
const Path = "/run/sealboot/receipt"

// Which passphrase opened the disk, in GRUB's words.
const (
	Current  = "current"
	Previous = "previous"
)

// Size of the entry in the secret table: session id, key.
const Size = 16 + 32

// ErrFormat is wrapped where a receipt is not what GRUB or the agent would have written.
var ErrFormat = errors.New("malformed receipt")

// Receipt is the note.
type Receipt struct {
	Session [16]byte // names the launch session
	Key     [32]byte
	Used    string // Current or Previous
}

// New makes a receipt from what GRUB hands over: the entry of the secret table, session id | key, and the word.
func New(entry, used []byte) (*Receipt, error) {
	r := &Receipt{Used: string(used)}
	if len(entry) != Size {
		return nil, fmt.Errorf("%w: %d bytes, not %d", ErrFormat, len(entry), Size)
	}
	if r.Used != Current && r.Used != Previous {
		return nil, fmt.Errorf("%w: which passphrase was used is unknown", ErrFormat)
	}
	copy(r.Key[:], entry[copy(r.Session[:], entry):])
	return r, nil
}

// file is the JSON form. A []byte is base64 there.
type file struct {
	Session string `json:"session"`
	Key     []byte `json:"key"`
	Used    string `json:"used"`
}

// SessionID gives the session's name as the key server's protocol spells it.
func (r *Receipt) SessionID() string { return hex.EncodeToString(r.Session[:]) }

// Encode gives the file's content.
func (r *Receipt) Encode() ([]byte, error) {
	text, err := json.Marshal(file{r.SessionID(), r.Key[:], r.Used})
	return append(text, '\n'), err
}

// Parse reads the file's content.
func Parse(text []byte) (*Receipt, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, fmt.Errorf("%w: not the JSON of one", ErrFormat) // the error would show part of the text
	}
	defer clear(f.Key)
	session, err := hex.DecodeString(f.Session)
	if err != nil {
		return nil, fmt.Errorf("%w: session is not hexadecimal", ErrFormat)
	}
	entry := append(session, f.Key...)
	defer clear(entry)
	r, err := New(entry, []byte(f.Used))
	if err != nil {
		return nil, err
	}
	if again, err := r.Encode(); err != nil || !bytes.Equal(again, text) {
		r.Wipe()
		return nil, fmt.Errorf("%w: not as the agent writes it", ErrFormat)
	}
	return r, nil
}

// Wipe overwrites the key.
func (r *Receipt) Wipe() { clear(r.Key[:]) }
