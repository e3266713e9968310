package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/sealboot/sealboot/internal/testtool"
)

// layout is an OCI layout in the making.
type layout struct {
	files    map[string][]byte
	index    map[string]any
	manifest map[string]any
	config   map[string]any
	platform map[string]string // of the manifest's descriptor
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

func (l *layout) blob(b []byte) map[string]any {
	l.files["blobs/sha256/"+sum(b)[7:]] = b
	return map[string]any{"digest": sum(b), "size": len(b)}
}

func (l *layout) json(t testing.TB, mediaType string, v any) map[string]any {
	b, err := json.Marshal(v)
	check(t, err)
	d := l.blob(b)
	d["mediaType"] = mediaType
	return d
}

// newLayout makes an image of two layers, one gzip and one zstd: the second deletes /etc/old, and changes /etc/new.
func newLayout(t testing.TB) *layout {
	l := &layout{files: map[string][]byte{layoutFile: []byte(`{"imageLayoutVersion":"1.0.0"}`)}, platform: map[string]string{"os": "linux", "architecture": "amd64"}}
	one := pack(t, tar.Header{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, tar.Header{Name: "etc/old", Typeflag: tar.TypeReg, Size: 1}, tar.Header{Name: "etc/new", Typeflag: tar.TypeReg, Size: 1})
	two := pack(t, tar.Header{Name: "etc/.wh.old", Typeflag: tar.TypeReg}, tar.Header{Name: "etc/new", Typeflag: tar.TypeReg, Size: 3})
	var zipped, packed bytes.Buffer
	g := gzip.NewWriter(&zipped)
	_, err := g.Write(one)
	check(t, err, g.Close())
	z, err := zstd.NewWriter(&packed)
	check(t, err)
	_, err = z.Write(two)
	check(t, err, z.Close())
	var layers []any
	for i, b := range [][]byte{zipped.Bytes(), packed.Bytes()} {
		d := l.blob(b)
		d["mediaType"] = layerTypes[i+1]
		layers = append(layers, d)
	}
	l.config = map[string]any{"os": "linux", "architecture": "amd64", "rootfs": map[string]any{"type": "layers", "diff_ids": []string{sum(one), sum(two)}}}
	l.manifest = map[string]any{"schemaVersion": 2, "layers": layers}
	return l
}

// finish writes the documents that name others.
func (l *layout) finish(t testing.TB) *layout {
	if l.manifest["config"] == nil {
		l.manifest["config"] = l.json(t, "application/vnd.oci.image.config.v1+json", l.config)
	}
	d := l.json(t, manifestTypes[0], l.manifest)
	if l.platform != nil {
		d["platform"] = l.platform
	}
	other := map[string]any{"mediaType": manifestTypes[0], "digest": sum(nil), "size": 0, "platform": map[string]string{"os": "linux", "architecture": "arm64"}}
	if l.index == nil {
		l.index = map[string]any{"schemaVersion": 2, "manifests": []any{other, d}}
	}
	b, err := json.Marshal(l.index)
	check(t, err)
	l.files[indexFile] = b
	return l
}

func (l *layout) folder(t testing.TB) string {
	dir := t.TempDir()
	for name, content := range l.files {
		check(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755), os.WriteFile(filepath.Join(dir, name), content, 0o600))
	}
	return dir
}

func (l *layout) archive(t testing.TB) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, content := range l.files {
		check(t, w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(content))}))
		_, err := w.Write(content)
		check(t, err)
	}
	check(t, w.Close())
	return out.Bytes()
}

var layoutHolds = []string{"/etc/", "/etc/new:xxx"}

func TestOCI(t *testing.T) {
	l := newLayout(t).finish(t)
	for name, path := range map[string]string{"folder": l.folder(t), "archive": write(t, l.archive(t))} {
		src := open(t, path)
		for range 2 {
			if got := shown(t, src); !slices.Equal(got, layoutHolds) {
				t.Errorf("%s: %q", name, got)
			}
		}
	}
	nested := newLayout(t).finish(t)
	inner := nested.json(t, indexTypes[0], nested.index)
	nested.index = map[string]any{"manifests": []any{inner}}
	nested.finish(t)
	if got := shown(t, open(t, nested.folder(t))); !slices.Equal(got, layoutHolds) {
		t.Errorf("nested: %q", got)
	}
	bare := newLayout(t)
	bare.platform = nil
	if got := shown(t, open(t, bare.finish(t).folder(t))); !slices.Equal(got, layoutHolds) {
		t.Errorf("without a platform: %q", got)
	}
}

func TestOCIRefuses(t *testing.T) {
	layers := func(l *layout) []any { return l.manifest["layers"].([]any) }
	for name, c := range map[string]struct {
		spoil func(*layout)
		after func(*layout) // when all is written
	}{
		"version":           {spoil: func(l *layout) { l.files[layoutFile] = []byte(`{"imageLayoutVersion":"2.0.0"}`) }},
		"no JSON":           {after: func(l *layout) { l.files[indexFile] = []byte("{") }},
		"another platform":  {spoil: func(l *layout) { l.platform["architecture"] = "arm64" }},
		"config of another": {spoil: func(l *layout) { l.config["architecture"] = "arm64" }},
		"no layers":         {spoil: func(l *layout) { l.manifest["layers"] = []any{} }},
		"one layer too few": {spoil: func(l *layout) { l.manifest["layers"] = layers(l)[:1] }},
		"layer's type": {spoil: func(l *layout) {
			layers(l)[0].(map[string]any)["mediaType"] = "application/vnd.oci.image.layer.v1.tar+encrypted"
		}},
		"layer's size":       {spoil: func(l *layout) { layers(l)[0].(map[string]any)["size"] = 5 }},
		"layer's digest":     {spoil: func(l *layout) { layers(l)[0].(map[string]any)["digest"] = sum([]byte("x")) }},
		"digest leads out":   {spoil: func(l *layout) { layers(l)[0].(map[string]any)["digest"] = "sha256:../../../etc/passwd" }},
		"digest of MD5":      {spoil: func(l *layout) { layers(l)[0].(map[string]any)["digest"] = "md5:" + strings.Repeat("0", 32) }},
		"layer is missing":   {after: func(l *layout) { delete(l.files, "blobs/sha256/"+layers(l)[0].(map[string]any)["digest"].(string)[7:]) }},
		"layer was changed":  {after: func(l *layout) { spoilBlob(l, layers(l)[1]) }},
		"layer was enlarged": {after: func(l *layout) { n := blobName(layers(l)[1]); l.files[n] = append(l.files[n], 0) }},
		"config was changed": {after: func(l *layout) { spoilBlob(l, l.manifest["config"]) }},
		"two images": {after: func(l *layout) {
			l.config["author"] = "another"
			l.manifest["config"] = nil
			two := l.json(t, manifestTypes[0], map[string]any{"config": l.json(t, "", l.config), "layers": l.manifest["layers"]})
			l.index["manifests"] = append(l.index["manifests"].([]any), two)
			l.files[indexFile], _ = json.Marshal(l.index)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLayout(t)
			if c.spoil != nil {
				c.spoil(l)
			}
			l.finish(t)
			if c.after != nil {
				c.after(l)
			}
			for _, path := range []string{l.folder(t), write(t, l.archive(t))} {
				src, err := Open(path)
				if err == nil {
					err = src.Walk(t.Context(), func(_ Entry, r io.Reader) error {
						if r != nil {
							io.Copy(io.Discard, r)
						}
						return nil
					})
				}
				if !errors.Is(err, ErrOCI) {
					t.Errorf("got %v", err)
				}
			}
		})
	}
	var out bytes.Buffer
	g := gzip.NewWriter(&out)
	g.Write(pack(t, tar.Header{Name: "oci-layout", Typeflag: tar.TypeReg, Size: 3}))
	check(t, g.Close())
	if src, err := Open(write(t, out.Bytes())); src != nil || !errors.Is(err, ErrOCI) {
		t.Errorf("compressed as a whole: %v, %v", src, err)
	}
}

func blobName(d any) string {
	return "blobs/sha256/" + d.(map[string]any)["digest"].(string)[7:]
}

// spoilBlob changes the last byte, so that its size stays.
func spoilBlob(l *layout, d any) {
	b := bytes.Clone(l.files[blobName(d)])
	b[len(b)-1] ^= 1
	l.files[blobName(d)] = b
}

// TestLayoutLeadsNowhere has a blob that is a link out of the layout, and one that is a named pipe.
func TestLayoutLeadsNowhere(t *testing.T) {
	l := newLayout(t).finish(t)
	blob := blobName(l.manifest["config"])
	outside := write(t, l.files[blob])
	for name, spoil := range map[string]func(string) error{
		"link": func(path string) error { return os.Symlink(outside, path) },
		"pipe": func(path string) error { return exec.Command("mkfifo", path).Run() },
	} {
		dir := l.folder(t)
		check(t, os.Remove(filepath.Join(dir, blob)), spoil(filepath.Join(dir, blob)))
		if src, err := Open(dir); src != nil || !errors.Is(err, ErrOCI) {
			t.Errorf("%s: %v, %v", name, src, err)
		}
	}
}

// TestOCIOfTools reads what umoci and skopeo make, where they are installed.
func TestOCIOfTools(t *testing.T) {
	for _, tool := range []string{"umoci", "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	umoci, skopeo := testtool.Program(t, "umoci"), testtool.Program(t, "skopeo")
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	check(t, os.MkdirAll(in("one/usr/lib"), 0o755), os.MkdirAll(in("one/etc/d"), 0o755), os.WriteFile(in("one/etc/old"), []byte("1"), 0o644),
		os.WriteFile(in("one/etc/d/old"), []byte("1"), 0o644), os.Symlink("usr/lib", in("one/lib")),
		os.MkdirAll(in("two"), 0o755), os.WriteFile(in("two/new"), []byte("2"), 0o644))
	testtool.Output(t, umoci, "init", "--layout", in("oci"))
	testtool.Output(t, umoci, "new", "--image", in("oci")+":x")
	testtool.Output(t, umoci, "config", "--image", in("oci")+":x", "--architecture", "amd64", "--os", "linux")
	testtool.Output(t, umoci, "insert", "--rootless", "--image", in("oci")+":x", in("one"), "/")
	testtool.Output(t, umoci, "insert", "--rootless", "--opaque", "--image", in("oci")+":x", in("two"), "/etc/d")
	testtool.Output(t, umoci, "insert", "--rootless", "--whiteout", "--image", in("oci")+":x", "/etc/old")
	testtool.Output(t, umoci, "gc", "--layout", in("oci"))
	policy := in("policy.json")
	check(t, os.WriteFile(policy, []byte(`{"default":[{"type":"insecureAcceptAnything"}]}`), 0o600))
	for _, to := range []string{"oci-archive:" + in("oci.tar"), "docker-archive:" + in("docker.tar") + ":x:y", "oci:" + in("copy") + ":z"} {
		testtool.Output(t, skopeo, "--policy", policy, "--override-arch", "amd64", "copy", "-q", "oci:"+in("oci")+":x", to)
	}
	want := []string{"/", "/etc/", "/etc/d/", "/etc/d/new:2", "/lib -> usr/lib", "/usr/", "/usr/lib/"}
	for _, name := range []string{"oci", "oci.tar", "docker.tar", "copy"} {
		if got := shown(t, open(t, in(name))); !slices.Equal(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// makeDeb packs a Debian package by hand.
func makeDeb(t testing.TB, data []byte, name string) []byte {
	out := bytes.NewBufferString(arMagic)
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar", []byte("odd")}, {name, data}} {
		fmt.Fprintf(out, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", m.name, 0, 0, 0, 0o100644, len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

func TestKernelOverRoot(t *testing.T) {
	root := stack(t, []string{"usr/", "usr/lib/", "lib -> usr/lib", "boot/", "etc/", "etc/issue"})
	modules := pack(t, tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700}, tar.Header{Name: "./boot/", Typeflag: tar.TypeDir, Mode: 0o700},
		tar.Header{Name: "./boot/vmlinuz-6", Typeflag: tar.TypeReg, Size: 2}, tar.Header{Name: "./lib/modules/", Typeflag: tar.TypeDir},
		tar.Header{Name: "./lib/modules/6/x.ko", Typeflag: tar.TypeReg, Size: 1}, tar.Header{Name: "./etc/issue", Typeflag: tar.TypeReg, Size: 9})
	want := []string{"/boot/", "/boot/vmlinuz-6:xx", "/etc/", "/etc/issue:1", "/lib -> usr/lib", "/usr/", "/usr/lib/", "/usr/lib/modules/6/x.ko:x"}
	for name, content := range map[string][]byte{"tar": modules, "deb": makeDeb(t, modules, "data.tar")} {
		kernel, err := Kernel(write(t, content))
		check(t, err)
		got := slices.DeleteFunc(shown(t, Overlay(root, kernel)), func(s string) bool { return s == "/usr/lib/modules/" })
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q", name, got)
		}
	}
	none, err := Kernel(write(t, pack(t, tar.Header{Name: "etc/x", Typeflag: tar.TypeReg})))
	check(t, err)
	if err := none.Walk(t.Context(), func(Entry, io.Reader) error { return nil }); !errors.Is(err, ErrEntry) {
		t.Errorf("without a kernel: %v", err)
	}
	for name, deb := range map[string][]byte{"no data": makeDeb(t, nil, "other"), "cut": []byte(arMagic + "debian"), "broken": append([]byte(arMagic), make([]byte, 60)...)} {
		if k, err := Kernel(write(t, deb)); k != nil || !errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v, %v", name, k, err)
		}
	}
}

// FuzzOCI changes the documents of a layout that is right otherwise.
func FuzzOCI(f *testing.F) {
	l := newLayout(f).finish(f)
	manifest, err := json.Marshal(l.manifest)
	check(f, err)
	config, err := json.Marshal(l.config)
	check(f, err)
	f.Add(l.files[indexFile], manifest, config)
	f.Fuzz(func(t *testing.T, index, manifest, config []byte) {
		b := memoryBlobs{}
		for name, content := range l.files {
			b[name] = content
		}
		b[indexFile] = index
		b[dockerFile] = index
		for _, content := range [][]byte{manifest, config} {
			b["blobs/sha256/"+sum(content)[7:]] = content
		}
		for _, open := range []func(blobs) (Source, error){openOCI, openDocker} {
			if src, err := open(b); err == nil {
				src.Walk(t.Context(), func(Entry, io.Reader) error { return nil })
			} else if src != nil {
				t.Fatal("a source beside an error")
			}
		}
	})
}

type memoryBlobs map[string][]byte

func (m memoryBlobs) open(name string) (io.ReadCloser, int64, error) {
	b, ok := m[name]
	if !ok {
		return nil, 0, ErrOCI
	}
	return io.NopCloser(bytes.NewReader(b)), int64(len(b)), nil
}
