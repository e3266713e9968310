package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/sealboot/sealboot/luks"
)

// Disks are the machine's block devices.
type Disks interface {
	// List names the devices that are there now, disks and partitions.
	List() ([]string, error)
	Open(name string) (Disk, error)
}

// Disk is a block device. The host answers what it likes, and may answer otherwise next time.
type Disk interface {
	io.ReaderAt
	io.Closer
	Size() int64    // bytes
	Number() string // MAJOR:MINOR
}

// Found is the disk that was asked for, and the one copy of its header.
type Found struct {
	Name   string
	Disk   Disk
	Header *luks.Header
}

const (
	pause     = 10 * time.Millisecond // between two looks at the list
	minHeader = 4096                  // bytes of LUKS2's binary header; LUKS1 has key slots beyond that
)

// Find waits until the disk with a LUKS header of that UUID is there, or the context ends.
func Find(ctx context.Context, disks Disks, uuid string) (*Found, error) {
	seen := map[string]bool{}
	problem := error(nil) // of a disk that could not be looked at
	for {
		names, err := disks.List()
		if err != nil {
			return nil, fmt.Errorf("list disks: %w", err)
		}
		for _, name := range names {
			if seen[name] {
				continue
			}
			found, err := look(disks, name, uuid)
			if found != nil || errors.Is(err, ErrHeader) {
				return found, err
			}
			if err == nil {
				seen[name] = true // another disk, for good
			} else { // may be on its way
				problem = fmt.Errorf("%s: %w", name, err)
			}
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			err := fmt.Errorf("%w: none of %d has the LUKS UUID %s", ErrNoDisk, len(names), uuid)
			if problem != nil {
				err = fmt.Errorf("%w (%w)", err, problem)
			}
			return nil, err
		}
	}
}

// look opens a disk and reads its header. A disk that is another one gives neither a result nor
// an error; one that carries the UUID and is refused gives ErrHeader.
func look(disks Disks, name, uuid string) (_ *Found, err error) {
	disk, err := disks.Open(name)
	if err != nil {
		return nil, err
	}
	keep := false
	defer func() {
		if !keep {
			disk.Close()
		}
	}()
	if disk.Size() < minHeader {
		return nil, nil
	}
	copied := newSnapshot(disk, disk.Size())
	claimed, err := claimedUUID(copied)
	if err != nil {
		return nil, err
	}
	header, err := luks.Read(copied, disk.Size())
	switch {
	case err != nil && claimed == uuid:
		return nil, fmt.Errorf("%w: %s: %w", ErrHeader, name, err)
	case errors.Is(err, luks.ErrNotLUKS):
		return nil, nil
	case err != nil:
		return nil, err
	case !strings.EqualFold(header.UUID(), uuid):
		return nil, nil
	}
	keep = true
	return &Found{Name: name, Disk: disk, Header: header}, nil
}

// claimedUUID reads the UUID where LUKS1 and LUKS2 headers have it (40 bytes at 168, LUKS2 On-Disk
// Format Specification, 2.1), only to tell "refused" from "another disk".
func claimedUUID(r io.ReaderAt) (string, error) {
	var b [208]byte
	if _, err := r.ReadAt(b[:], 0); err != nil {
		return "", err
	}
	if string(b[:6]) != "LUKS\xba\xbe" {
		return "", nil
	}
	uuid, _, _ := bytes.Cut(b[168:], []byte{0})
	return strings.ToLower(string(uuid)), nil
}
