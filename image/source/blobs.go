package source

import (
	"archive/tar"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"regexp"
	"strings"
)

// blobs gives the files of a container image's folder or archive.
type blobs interface {
	// open opens a regular file and tells its size.
	open(name string) (io.ReadCloser, int64, error)
}

// layoutFolder is an OCI layout in a folder. No name leads out of it, by a link or otherwise.
type layoutFolder struct{ path string }

func (l *layoutFolder) open(name string) (io.ReadCloser, int64, error) {
	root, err := os.OpenRoot(l.path)
	if err != nil {
		return nil, 0, err
	}
	defer root.Close()
	info, err := root.Stat(name) // before it is opened, which would wait for a named pipe's other end
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrOCI, err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%w: %s is a %v", ErrOCI, name, info.Mode().Type())
	}
	f, err := root.Open(name)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrOCI, err)
	}
	return f, info.Size(), nil
}

// isLayout says whether a folder is an OCI layout rather than a root file system.
func isLayout(dir string) bool {
	for _, name := range []string{layoutFile, indexFile} {
		if info, err := os.Lstat(path.Join(dir, name)); err != nil || !info.Mode().IsRegular() {
			return false
		}
	}
	return true
}

const dockerFile = "manifest.json"

// layoutArchive is an OCI layout, or what `docker save` wrote, in a tar archive without compression.
type layoutArchive struct {
	path  string
	files map[string]span
}

type span struct{ offset, size int64 }

func (l *layoutArchive) open(name string) (io.ReadCloser, int64, error) {
	at, ok := l.files[strings.TrimPrefix(name, "./")]
	if !ok {
		return nil, 0, fmt.Errorf("%w: there is no file %q in it", ErrOCI, name)
	}
	f, err := os.Open(l.path)
	if err != nil {
		return nil, 0, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, at.offset, at.size), f}, at.size, nil
}

// imageEntry matches the names in an image's archive: those of a layout, and docker's folders and files of hexadecimal
// names. The first other name tells that the archive is a root file system.
var imageEntry = regexp.MustCompile(`^(\./)?(|oci-layout|index\.json|manifest\.json|repositories|blobs(/.*)?|[0-9a-f]{64}(\.json|\.tar|/.*)?)/?$`)

const maxImageEntries = 100_000

// openImageArchive opens an archive that is a container image; nil says that it is none.
func openImageArchive(name string, f *os.File) (Source, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	l := &layoutArchive{name, map[string]span{}}
	t := tar.NewReader(f) // skips by seeking, and reads nothing in advance
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || n > maxImageEntries || !imageEntry.MatchString(h.Name) {
			return nil, nil // who walks it tells what is wrong
		}
		if h.Typeflag != tar.TypeReg {
			continue
		}
		at, err := f.Seek(0, io.SeekCurrent)
		if err != nil {
			return nil, err
		}
		l.files[strings.TrimPrefix(h.Name, "./")] = span{at, h.Size}
	}
	_, layout := l.files[layoutFile]
	_, index := l.files[indexFile]
	_, docker := l.files[dockerFile]
	switch {
	case layout && index:
		return openOCI(l)
	case docker:
		return openDocker(l)
	}
	return nil, nil
}

// digest is the name of a blob, as "sha256:" and hexadecimal digits (image-spec, descriptor.md, "Digests").
type digest string

var goodDigest = regexp.MustCompile(`^(sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})$`)

func (d digest) check() error {
	if !goodDigest.MatchString(string(d)) {
		return fmt.Errorf("%w: digest %q", ErrOCI, string(d))
	}
	return nil
}

// path is where a layout has the blob (image-layout.md, "Blobs").
func (d digest) path() string { return "blobs/" + strings.Replace(string(d), ":", "/", 1) }

// verify reads a blob whose digest finish compares.
func (d digest) verify(r io.Reader) *verified {
	v := &verified{r: r, want: d, hash: sha256.New()}
	if strings.HasPrefix(string(d), "sha512:") {
		v.hash = sha512.New()
	}
	return v
}

type verified struct {
	r    io.Reader
	want digest
	hash hash.Hash
}

func (v *verified) Read(p []byte) (int, error) {
	n, err := v.r.Read(p)
	v.hash.Write(p[:n])
	return n, err
}

// finish reads what is left and compares the digest.
func (v *verified) finish() error {
	if _, err := io.Copy(io.Discard, v); err != nil {
		return fmt.Errorf("read %s: %w", v.want, err)
	}
	name, want, _ := strings.Cut(string(v.want), ":")
	if got := hex.EncodeToString(v.hash.Sum(nil)); got != want {
		return fmt.Errorf("%w: its digest is %s:%s, it should be %s", ErrOCI, name, got, v.want)
	}
	return nil
}
