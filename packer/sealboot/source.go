package sealboot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// choose gives the file to make a disk of: the one named by the source field, which may be the bare name of one of the artifact's
// files, or else the only file of the artifact that can hold a root file system.
func choose(source string, files []string) (string, error) {
	if source != "" {
		if i := slices.IndexFunc(files, func(file string) bool { return filepath.Base(file) == source }); i >= 0 {
			return files[i], nil
		}
		return source, nil
	}
	if len(files) == 1 {
		return files[0], nil // sealboot judges it
	}
	var found []string
	for _, file := range files {
		ok, err := holdsRoot(file)
		if err != nil {
			return "", fmt.Errorf("look at the artifact's files: %w", err)
		}
		if ok {
			found = append(found, file)
		}
	}
	switch {
	case len(files) == 0:
		return "", errors.New("the artifact has no files: set source to a disk image, an archive or a folder")
	case len(found) == 0:
		return "", fmt.Errorf("none of the artifact's files (%s) is a disk image or an archive: set source", strings.Join(files, ", "))
	case len(found) > 1:
		return "", fmt.Errorf("several of the artifact's files could be the source (%s): set source to one of them", strings.Join(found, ", "))
	}
	return found[0], nil
}

// signatures tell disk images and archives from what else builders make, such as a file of firmware variables.
var signatures = []struct {
	at    int
	magic string
}{
	{0, "QFI\xfb"},          // QCOW2
	{510, "\x55\xaa"},       // a partition table, MBR or GPT with its protective MBR
	{1080, "\x53\xef"},      // ext4: 1024 bytes before the superblock, in which it stands at 56
	{0, "XFSB"},             // XFS
	{0x10040, "_BHRfS_M"},   // btrfs: superblock at 64 KiB, in which it stands at 64
	{257, "ustar"},          // tar
	{0, "\x1f\x8b"},         // gzip
	{0, "\xfd7zXZ\x00"},     // xz
	{0, "\x28\xb5\x2f\xfd"}, // zstd
}

func holdsRoot(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return false, err
	}
	for _, s := range signatures {
		found := make([]byte, len(s.magic))
		switch _, err := f.ReadAt(found, int64(s.at)); {
		case err == nil && bytes.Equal(found, []byte(s.magic)):
			return true, nil
		case err != nil && !errors.Is(err, io.EOF):
			return false, err
		}
	}
	return false, nil
}
