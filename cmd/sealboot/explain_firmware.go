package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"github.com/sealboot/sealboot/explain"
	"github.com/sealboot/sealboot/ovmf"
)

// Bounds of a folder of firmware, which may be anybody's.
const (
	maxFolderEntries = 4096
	maxFolderBytes   = 256 << 20 // read in all
)

// firmwareFolder adds a folder's firmware files, in the order of their names, each content once. What it passes over it
// names, and why, but for other files than firmware. Links lead nowhere outside the folder, and nothing but a regular file is read.
func firmwareFolder(dir string, list []explain.Firmware) (_ []explain.Firmware, skipped []string, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("--try-firmware: %w", err)
	}
	defer root.Close()
	folder, err := root.Open(".")
	if err != nil {
		return nil, nil, fmt.Errorf("--try-firmware: %w", err)
	}
	defer folder.Close()
	names, err := folder.Readdirnames(maxFolderEntries + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, nil, fmt.Errorf("--try-firmware: %w", err)
	}
	if len(names) > maxFolderEntries {
		return nil, nil, fmt.Errorf("--try-firmware: %s has more than %d entries", dir, maxFolderEntries)
	}
	slices.Sort(names)
	seen := map[[sha256.Size]byte]bool{}
	for _, f := range list {
		seen[sha256.Sum256(f.Data)] = true
	}
	skip := func(name string, err error) { skipped = append(skipped, fmt.Sprintf("%q: %v", name, err)) }
	left := int64(maxFolderBytes)
	for _, name := range names {
		data, err := firmwareIn(root, name, left)
		left -= int64(len(data))
		switch {
		case err != nil:
			skip(name, err)
			continue
		case data == nil: // a folder
			continue
		}
		if _, err := ovmf.Parse(data); err != nil {
			if !errors.Is(err, ovmf.ErrNotOVMF) {
				skip(name, err)
			}
			continue
		}
		if sum := sha256.Sum256(data); !seen[sum] {
			if len(list) == explain.MaxFirmwares {
				skip(name, fmt.Errorf("%d firmware files are searched, no more", explain.MaxFirmwares))
				continue
			}
			seen[sum] = true
			list = append(list, explain.Firmware{Name: name, Data: data})
		}
	}
	return list, skipped, nil
}

// firmwareIn reads one file; nothing for a folder.
func firmwareIn(root *os.Root, name string, left int64) ([]byte, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe must not hold us up
	if err != nil {
		if path := (*fs.PathError)(nil); errors.As(err, &path) {
			err = path.Err
		}
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, nil
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case info.Size() > ovmf.MaxSize:
		return nil, fmt.Errorf("%d bytes: firmware has at most %d", info.Size(), ovmf.MaxSize)
	case info.Size() > left:
		return nil, fmt.Errorf("%d bytes of files were read, no more", maxFolderBytes)
	}
	return io.ReadAll(io.LimitReader(f, info.Size()))
}
