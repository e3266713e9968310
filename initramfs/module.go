package initramfs

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/sealboot/sealboot/image/source/xz"
)

// module is a kernel module, unpacked.
type module struct {
	name    string // with "_", as the kernel knows it
	content []byte
	depends []string // loaded before it; without them it does not load
	pre     []string // softdep: loaded before it, if there
	post    []string // softdep: loaded after it, if there
}

func (m *module) file() string { return m.name + ".ko" }

// maxModule bounds a module's size; the largest of Debian's (amdgpu) has 30 MB unpacked.
const maxModule = 256 << 20

// suffixes of module files: kernel/scripts/Makefile.modinst (CONFIG_MODULE_COMPRESS_*).
var suffixes = []string{".ko", ".ko.gz", ".ko.xz", ".ko.zst"}

// moduleName gives the name of the module in the file, or "" if it is no module.
func moduleName(file string) string {
	base := path.Base(file)
	for _, suffix := range suffixes {
		if name, ok := strings.CutSuffix(base, suffix); ok && name != "" {
			return normal(name)
		}
	}
	return ""
}

// normal spells a module's name as the kernel does: files use "-" and "_" alike.
func normal(name string) string { return strings.ReplaceAll(name, "-", "_") }

// readModule reads a module's file and what it says about itself.
func readModule(file string, r io.Reader) (*module, error) {
	content, err := unpack(file, r)
	if err != nil {
		return nil, err
	}
	m := &module{name: moduleName(file), content: content}
	info, err := modinfo(content)
	if err != nil {
		return nil, err
	}
	for _, field := range info {
		key, value, _ := strings.Cut(field, "=")
		switch key {
		case "depends":
			for name := range strings.SplitSeq(value, ",") {
				if name != "" {
					m.depends = append(m.depends, normal(name))
				}
			}
		case "softdep": // "pre: a b post: c", modprobe.d(5)
			list := &m.pre
			for word := range strings.FieldsSeq(value) {
				switch word {
				case "pre:":
					list = &m.pre
				case "post:":
					list = &m.post
				default:
					*list = append(*list, normal(word))
				}
			}
		}
	}
	return m, nil
}

func unpack(file string, r io.Reader) ([]byte, error) {
	switch path.Ext(file) {
	case ".gz":
		z, err := gzip.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = z
	case ".xz":
		x, err := xz.NewReader(r)
		if err != nil {
			return nil, err
		}
		r = x
	case ".zst":
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxModule))
		if err != nil {
			return nil, err
		}
		defer z.Close()
		r = z
	}
	content, err := io.ReadAll(io.LimitReader(r, maxModule+1))
	if err != nil {
		return nil, err
	}
	if len(content) > maxModule {
		return nil, fmt.Errorf("more than %d bytes unpacked", maxModule)
	}
	return content, nil
}

// modinfo gives the strings of section .modinfo, "key=value" each.
func modinfo(content []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo: not a kernel module")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	var fields []string
	for field := range strings.SplitSeq(string(data), "\x00") {
		if field != "" {
			fields = append(fields, field)
		}
	}
	return fields, nil
}
