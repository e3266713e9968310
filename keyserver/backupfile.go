package keyserver

import (
	"bufio"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/crypto/chacha20poly1305"
)

// A backup file is the line backupMagic, 32 random bytes, and chunks.
//
// Its key is HKDF-SHA256 of the store's backup key with the random bytes as salt. Each chunk is sealed by
// ChaCha20-Poly1305 under a nonce of 12 bytes, 11 for the chunk's number from 0, big-endian, and one that is 1 for the last chunk and 0 for
// the others (the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár, "Online Authenticated-Encryption and its
// Nonce-Reuse Misuse-Resistance"). All but the last hold 65,536 bytes, the last 1 to 65,536. So no byte is looked at before it
// is known to be the store's, and a file that was cut off, joined or changed does not read to its end.
//
// The chunks hold records: the header's three numbers (form of the tables, time in Unix seconds, open sessions), and for each
// table recordTable, its name, the number and names of its columns, and for each row recordRow and its values; recordEnd ends it.
// Numbers are varints of encoding/binary in their shortest form, names and values have their length before them.
const (
	backupMagic = "sealboot-store-backup-1\n"
	backupSalt  = 32
	backupChunk = 64 << 10
)

// ErrBackup says that a file is no backup of this store's key, or was changed or cut off.
var ErrBackup = errors.New("not a whole backup made with this store key")

func (k *Key) backupFile(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, k.backup, salt, "sealboot key server store 1: backup file", chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return chacha20poly1305.New(key)
}

// chunkNonce counts chunks.
type chunkNonce [chacha20poly1305.NonceSize]byte

func (n *chunkNonce) next() {
	binary.BigEndian.PutUint64(n[3:11], binary.BigEndian.Uint64(n[3:11])+1) // 2^64 chunks never come
}

// chunkWriter seals what is written to it. Nothing reads without its Close.
type chunkWriter struct {
	w     io.Writer
	aead  cipher.AEAD
	nonce chunkNonce
	plain []byte // not yet sealed: a full chunk waits, for it may be the last
	out   []byte
}

func newChunkWriter(w io.Writer, key *Key, random io.Reader) (*chunkWriter, error) {
	head := make([]byte, len(backupMagic)+backupSalt)
	salt := head[copy(head, backupMagic):]
	if _, err := io.ReadFull(random, salt); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	aead, err := key.backupFile(salt)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(head); err != nil {
		return nil, err
	}
	return &chunkWriter{w: w, aead: aead, plain: make([]byte, 0, backupChunk)}, nil
}

func (c *chunkWriter) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		if len(c.plain) == backupChunk {
			if err := c.flush(); err != nil {
				return n, err
			}
		}
		m := copy(c.plain[len(c.plain):backupChunk], p)
		c.plain, p, n = c.plain[:len(c.plain)+m], p[m:], n+m
	}
	return n, nil
}

func (c *chunkWriter) flush() error {
	c.out = c.aead.Seal(c.out[:0], c.nonce[:], c.plain, nil)
	c.plain = c.plain[:0]
	c.nonce.next()
	_, err := c.w.Write(c.out)
	return err
}

// Close seals the last chunk.
func (c *chunkWriter) Close() error {
	c.nonce[len(c.nonce)-1] = 1
	return c.flush()
}

// chunkReader opens what a chunkWriter sealed. Its end is io.EOF only after the last chunk, with nothing behind it.
type chunkReader struct {
	r     *bufio.Reader
	aead  cipher.AEAD
	nonce chunkNonce
	plain []byte // not yet read
	chunk []byte
	last  bool
}

func newChunkReader(r io.Reader, key *Key) (*chunkReader, error) {
	head := make([]byte, len(backupMagic)+backupSalt)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, broken(err)
	}
	if string(head[:len(backupMagic)]) != backupMagic {
		return nil, ErrBackup
	}
	aead, err := key.backupFile(head[len(backupMagic):])
	if err != nil {
		return nil, err
	}
	size := backupChunk + chacha20poly1305.Overhead
	return &chunkReader{r: bufio.NewReaderSize(r, size+1), aead: aead, chunk: make([]byte, size)}, nil
}

// broken makes an early end ErrBackup, and leaves other troubles of reading as they are.
func broken(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it ends early", ErrBackup)
	}
	return err
}

func (c *chunkReader) Read(p []byte) (int, error) {
	if len(c.plain) == 0 {
		if c.last {
			return 0, io.EOF
		}
		if err := c.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.plain)
	c.plain = c.plain[n:]
	return n, nil
}

func (c *chunkReader) next() error {
	n, err := io.ReadFull(c.r, c.chunk)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return broken(err)
	}
	if _, err := c.r.Peek(1); errors.Is(err, io.EOF) {
		c.last, c.nonce[len(c.nonce)-1] = true, 1
	} else if err != nil {
		return err
	}
	plain, err := c.aead.Open(c.chunk[:0], c.nonce[:], c.chunk[:n], nil)
	if err != nil || len(plain) == 0 {
		return ErrBackup
	}
	c.plain = plain
	c.nonce.next()
	return nil
}
