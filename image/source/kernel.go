package source

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Overlay is base with the entries of more laid over it. Folders that base has stay as they are;
// base's symbolic links are followed, so that /lib/modules ends up in /usr/lib where base has it so.
func Overlay(base Source, more ...Source) Source {
	m := &merged{layers: []layer{{src: base}}}
	for _, src := range more {
		m.layers = append(m.layers, layer{src: src, add: true})
	}
	return m
}

// OpenWith is Open, with kernels laid over what it gives.
func OpenWith(path string, kernels ...string) (Source, error) {
	src, err := Open(path)
	if err != nil {
		return nil, err
	}
	return OverKernels(src, kernels...)
}

// OverKernels is base with kernels laid over it.
func OverKernels(base Source, kernels ...string) (Source, error) {
	if len(kernels) == 0 {
		return base, nil
	}
	var more []Source
	for _, path := range kernels {
		k, err := Kernel(path)
		if err != nil {
			return nil, fmt.Errorf("kernel: %w", err)
		}
		more = append(more, k)
	}
	return Overlay(base, more...), nil
}

// kernelFolders are what Kernel takes.
var kernelFolders = []string{"/boot/", "/lib/modules/", "/usr/lib/modules/"}

// Kernel opens a kernel to be laid over a root: a Debian package, or what Open takes. Of
// what is there, only /boot and the modules count.
func Kernel(path string) (Source, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	magic := make([]byte, len(arMagic))
	if n, _ := f.ReadAt(magic, 0); n == len(magic) && string(magic) == arMagic {
		at, size, err := debData(f)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return &kernel{path, &deb{path, at, size}}, nil
	}
	src, err := Open(path)
	if err != nil {
		return nil, err
	}
	return &kernel{path, src}, nil
}

type kernel struct {
	path string
	src  Source
}

func (k *kernel) Walk(ctx context.Context, f WalkFunc) error {
	found := false
	err := k.src.Walk(ctx, func(e Entry, content io.Reader) error {
		for _, folder := range kernelFolders {
			if strings.HasPrefix(e.Path, folder) && len(e.Path) > len(folder) {
				found = true
				return f(e, content)
			}
		}
		return nil
	})
	if err == nil && !found {
		return fmt.Errorf("%w: %s has nothing in %s", ErrEntry, k.path, strings.Join(kernelFolders, ", "))
	}
	return err
}

const arMagic = "!<arch>\n" // ar(5)

// debData finds the archive of a Debian package's files: deb(5) has it as the third member of an
// ar archive, behind debian-binary and control.tar.
func debData(f io.ReaderAt) (at, size int64, err error) {
	at = int64(len(arMagic))
	var head [60]byte
	for members := 0; members < 16; members++ { // some tools put signatures between
		if _, err := f.ReadAt(head[:], at); err != nil {
			return 0, 0, fmt.Errorf("%w: a Debian package without data.tar: %w", ErrUnknown, noEOF(err))
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(head[48:58])), 10, 64)
		if err != nil || size < 0 || size > 1<<50 || !bytes.Equal(head[58:], []byte("`\n")) {
			return 0, 0, fmt.Errorf("%w: a Debian package with a broken member at %d", ErrUnknown, at)
		}
		at += int64(len(head))
		if strings.HasPrefix(string(head[:]), "data.tar") {
			return at, size, nil
		}
		at += size + size%2
	}
	return 0, 0, fmt.Errorf("%w: a Debian package without data.tar", ErrUnknown)
}

type deb struct {
	path     string
	at, size int64
}

func (d *deb) Walk(ctx context.Context, f WalkFunc) error {
	file, err := os.Open(d.path)
	if err != nil {
		return fmt.Errorf("read package: %w", err)
	}
	defer file.Close()
	return walkArchive(ctx, d.path, io.NewSectionReader(file, d.at, d.size), true, f)
}
