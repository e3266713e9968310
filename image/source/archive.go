package source

import (
	"archive/tar"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// archive walks a tar file (POSIX pax, ustar, GNU, v7), in its own order.
type archive struct{ path string }

func (s *archive) Walk(ctx context.Context, f WalkFunc) error {
	file, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read archive: %w", err)
	}
	defer file.Close()
	return walkArchive(ctx, s.path, file, true, f)
}

// walkArchive walks a tar archive, which may be compressed. One whose end is known in another way, as a
// layer's by its digest, need not have an end mark: umoci writes none behind whiteouts.
func walkArchive(ctx context.Context, name string, file io.Reader, marks bool, f WalkFunc) error {
	r, done, err := decompress(file)
	if err != nil {
		return fmt.Errorf("read archive %s: %w", name, err)
	}
	defer done()
	in := &marked{r: r}
	t := tar.NewReader(in)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) && in.ended && marks {
			return fmt.Errorf("read archive %s: it was cut short, its end mark is missing: %w", name, io.ErrUnexpectedEOF)
		} else if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read archive %s: %w", name, noEOF(err))
		}
		if h.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		e, err := tarEntry(h)
		if err != nil {
			return fmt.Errorf("read archive %s: %w", name, err)
		}
		var content io.Reader
		if e.Type == Regular {
			content = t
		}
		if err := f(e, content); err != nil {
			return fmt.Errorf("%s: %w", e.Path, noEOF(err))
		}
	}
}

// marked notes when its end is reached. At the end mark, two blocks of zeros, tar.Reader
// reads no further; where the end comes first, it takes that for an end too.
type marked struct {
	r     io.Reader
	ended bool
}

func (m *marked) Read(p []byte) (int, error) {
	n, err := m.r.Read(p)
	m.ended = m.ended || errors.Is(err, io.EOF)
	return n, err
}

// noEOF turns an early end into an error that no caller takes for a regular end.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func tarEntry(h *tar.Header) (Entry, error) {
	path, err := cleanPath(h.Name)
	if err != nil {
		return Entry{}, err
	}
	e := Entry{Path: path, Mode: uint32(h.Mode) & 0o7777, ModTime: h.ModTime}
	switch h.Typeflag {
	case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		e.Type, e.Size = Regular, h.Size
	case tar.TypeDir:
		e.Type = Folder
	case tar.TypeSymlink:
		e.Type, e.Link = Symlink, h.Linkname
	case tar.TypeLink:
		link, err := cleanPath(h.Linkname)
		if err != nil {
			return Entry{}, fmt.Errorf("%s is a hard link: %w", path, err)
		}
		return Entry{Path: path, Type: HardLink, Link: link}, nil
	case tar.TypeChar:
		e.Type = CharDevice
	case tar.TypeBlock:
		e.Type = BlockDevice
	case tar.TypeFifo:
		e.Type = FIFO
	default:
		return Entry{}, fmt.Errorf("%w: %s is of type %q", ErrEntry, path, h.Typeflag)
	}
	if e.UID, err = within32(path, "owner", int64(h.Uid)); err != nil {
		return Entry{}, err
	}
	if e.GID, err = within32(path, "group", int64(h.Gid)); err != nil {
		return Entry{}, err
	}
	if e.Type == CharDevice || e.Type == BlockDevice {
		if e.Major, err = within32(path, "device", h.Devmajor); err != nil {
			return Entry{}, err
		}
		if e.Minor, err = within32(path, "device", h.Devminor); err != nil {
			return Entry{}, err
		}
	}
	e.Xattrs, err = tarXattrs(path, h.PAXRecords)
	return e, err
}

func within32(path, what string, n int64) (uint32, error) {
	if n < 0 || n > math.MaxUint32 {
		return 0, fmt.Errorf("%w: %s has the %s number %d", ErrEntry, path, what, n)
	}
	return uint32(n), nil
}

// Keys of pax records that hold attributes: GNU tar's and star's (bytes as they are), and
// libarchive's (name percent-encoded, value base64). bsdtar writes both, with the same content.
const (
	paxXattr           = "SCHILY.xattr."
	paxLibarchiveXattr = "LIBARCHIVE.xattr."
	paxACL             = "SCHILY.acl."
	paxSELinux         = "RHT.security.selinux" // GNU tar --selinux: the label without its final zero byte
)

func tarXattrs(path string, records map[string]string) ([]Xattr, error) {
	values := map[string]string{}
	for key, value := range records {
		if strings.HasPrefix(key, paxACL) {
			return nil, fmt.Errorf("%w: %s has an access control list as text (%s): make the archive without --acls, with --xattrs-include='*'", ErrEntry, path, key)
		}
		name, ok := strings.CutPrefix(key, paxLibarchiveXattr)
		if !ok {
			continue
		}
		name, err := url.PathUnescape(name)
		if err != nil {
			return nil, fmt.Errorf("%w: %s has the attribute %s: %w", ErrEntry, path, strconv.Quote(key), err)
		}
		raw, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(value, "="))
		if err != nil {
			return nil, fmt.Errorf("%w: %s has the attribute %s: %w", ErrEntry, path, name, err)
		}
		values[name] = string(raw)
	}
	if label, ok := records[paxSELinux]; ok {
		values["security.selinux"] = label + "\x00"
	}
	for key, value := range records {
		if name, ok := strings.CutPrefix(key, paxXattr); ok {
			values[name] = value
		}
	}
	var found []Xattr
	for name, value := range values {
		found = append(found, Xattr{name, []byte(value)})
	}
	slices.SortFunc(found, func(a, b Xattr) int { return strings.Compare(a.Name, b.Name) })
	return found, nil
}

// validTarHeader checks a header's checksum (POSIX.1-2024 pax, "ustar Interchange Format":
// the sum of all bytes with the field itself, at 148, taken as spaces).
func validTarHeader(head []byte) bool {
	if len(head) < 512 {
		return false
	}
	var sum int64
	for i, b := range head[:512] {
		if i >= 148 && i < 156 {
			b = ' '
		}
		sum += int64(b)
	}
	text := strings.Trim(string(head[148:156]), " \x00")
	want, err := strconv.ParseInt(text, 8, 32)
	return err == nil && sum == want && head[0] != 0
}
