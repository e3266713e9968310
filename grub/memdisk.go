package grub

import (
	"archive/tar"
	"bytes"
	"fmt"
	"time"
)

// memdisk gives the tar archive that GRUB shows as (memdisk), with the one file grub.cfg.
// Owner, mode and time are fixed, so that the text alone decides its bytes.
func memdisk(text string) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	err := w.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg,
		Name:     "grub.cfg",
		Size:     int64(len(text)),
		Mode:     0o444,
		ModTime:  time.Unix(0, 0),
		Format:   tar.FormatUSTAR,
	})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack memdisk: %w", err)
	}
	return archive.Bytes(), nil
}
