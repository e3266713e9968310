package main

import (
	"fmt"
	"hash"
	"io"
	"os"

	"github.com/sealboot/sealboot/internal/cli"
	"golang.org/x/sys/unix"
)

// readPart is what is read before it is hashed, while the next is read.
const readPart = 128 << 10

// readAtOnce is cli.ReadBounded for a file that keeps its size, and gives its bytes to sum, if there is one, as they come.
func readAtOnce(name string, most int64, sum hash.Hash) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, ok := memoryFor(f, most)
	if !ok {
		if data, err = cli.ReadBounded(name, most); err == nil && sum != nil {
			sum.Write(data)
		}
		return data, err
	}
	if sum == nil {
		_, err = io.ReadFull(f, data)
	} else {
		err = readHashing(f, data, sum)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return data, nil
}

// memoryFor gives memory for a regular file that stays until the program ends. In large pages it is there, zeroed, in half the
// time; a kernel without them is as right, only slower.
func memoryFor(f *os.File, most int64) ([]byte, bool) {
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Size() == 0 || info.Size() > most {
		return nil, false
	}
	data, err := unix.Mmap(-1, 0, int(info.Size()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, false
	}
	unix.Madvise(data, unix.MADV_HUGEPAGE)
	return data, true
}

// readHashing fills data, and hashes one part while the next is read.
func readHashing(f io.Reader, data []byte, sum hash.Hash) error {
	parts := make(chan []byte, len(data)/readPart+1) // the reader never waits
	var err error
	go func() {
		defer close(parts)
		for at := 0; at < len(data) && err == nil; at += readPart {
			part := data[at:min(at+readPart, len(data))]
			if _, err = io.ReadFull(f, part); err == nil {
				parts <- part
			}
		}
	}()
	for part := range parts {
		sum.Write(part)
	}
	return err
}
