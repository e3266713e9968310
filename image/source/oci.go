package source

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// ErrOCI says that a container image cannot be taken.
var ErrOCI = errors.New("container image cannot be taken")

// What is read of an OCI image (image-spec v1.1: image-layout.md, image-index.md, manifest.md, config.md).
const (
	layoutFile = "oci-layout"
	indexFile  = "index.json"

	maxJSON      = 4 << 20 // bytes of an index, manifest or configuration
	maxLayers    = 512
	maxNested    = 3  // indexes in indexes
	maxManifests = 64 // of one index

	wantOS, wantArchitecture = "linux", "amd64"
)

// descriptor names a blob (image-spec, descriptor.md).
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      digest            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

type platform struct {
	OS           string `json:"os"`
	Architecture string `json:"architecture"`
}

func (p platform) wanted() bool { return p.OS == wantOS && p.Architecture == wantArchitecture }

// Media types of indexes, manifests and layers; Docker's names for the same come second.
var (
	indexTypes    = []string{"application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"}
	manifestTypes = []string{"application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"}
	layerTypes    = []string{
		"application/vnd.oci.image.layer.v1.tar", "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+zstd",
		"application/vnd.docker.image.rootfs.diff.tar", "application/vnd.docker.image.rootfs.diff.tar.gzip",
	}
)

// openOCI makes a source of the one image for linux/amd64 in a layout.
func openOCI(b blobs) (Source, error) {
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if err := readJSON(b, layoutFile, &layout); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(layout.Version, "1.") {
		return nil, fmt.Errorf("%w: layout version %q", ErrOCI, layout.Version)
	}
	var index struct {
		Manifests []descriptor `json:"manifests"`
	}
	if err := readJSON(b, indexFile, &index); err != nil {
		return nil, err
	}
	found, err := manifests(b, index.Manifests, "", 0)
	if err != nil {
		return nil, err
	}
	if len(found) != 1 {
		var names []string
		for _, d := range found {
			names = append(names, strings.TrimSpace(d.Annotations[refName]+" "+string(d.Digest)))
		}
		return nil, fmt.Errorf("%w: it holds %d images for %s/%s: copy the one that is wanted into a layout of its own, as with skopeo copy: %s",
			ErrOCI, len(found), wantOS, wantArchitecture, strings.Join(names, ", "))
	}
	return openManifest(b, found[0])
}

const refName = "org.opencontainers.image.ref.name" // annotation: what an image is called

// manifests finds the manifests for the platform that is wanted, each once. name is the index's.
func manifests(b blobs, list []descriptor, name string, depth int) (found []descriptor, err error) {
	if depth > maxNested || len(list) > maxManifests {
		return nil, fmt.Errorf("%w: %d manifests, in indexes nested %d deep", ErrOCI, len(list), depth)
	}
	for _, d := range list {
		if d.Annotations[refName] == "" {
			d.Annotations = map[string]string{refName: name}
		}
		switch {
		case d.Platform != nil && !d.Platform.wanted():
		case slices.Contains(indexTypes, d.MediaType):
			var index struct {
				Manifests []descriptor `json:"manifests"`
			}
			if err := readBlob(b, d, &index); err != nil {
				return nil, err
			}
			inner, err := manifests(b, index.Manifests, d.Annotations[refName], depth+1)
			if err != nil {
				return nil, err
			}
			found = append(found, inner...)
		case slices.Contains(manifestTypes, d.MediaType):
			if d.Platform == nil {
				_, _, p, err := readManifest(b, d)
				if err != nil {
					return nil, err
				}
				if !p.wanted() {
					continue
				}
			}
			found = append(found, d)
		}
	}
	slices.SortStableFunc(found, func(a, b descriptor) int { return strings.Compare(string(a.Digest), string(b.Digest)) })
	return slices.CompactFunc(found, func(a, b descriptor) bool { return a.Digest == b.Digest }), nil
}

// readManifest reads a manifest and its configuration.
func readManifest(b blobs, d descriptor) (layers []descriptor, diffs []digest, p platform, err error) {
	var manifest struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := readBlob(b, d, &manifest); err != nil {
		return nil, nil, p, err
	}
	var config struct {
		platform
		RootFS struct {
			DiffIDs []digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := readBlob(b, manifest.Config, &config); err != nil {
		return nil, nil, p, err
	}
	return manifest.Layers, config.RootFS.DiffIDs, config.platform, nil
}

func openManifest(b blobs, d descriptor) (Source, error) {
	layers, diffs, p, err := readManifest(b, d)
	if err != nil {
		return nil, err
	}
	switch {
	case !p.wanted():
		return nil, fmt.Errorf("%w: it is for %s/%s, not %s/%s", ErrOCI, p.OS, p.Architecture, wantOS, wantArchitecture)
	case len(layers) == 0 || len(layers) > maxLayers || len(layers) != len(diffs):
		return nil, fmt.Errorf("%w: %d layers, %d in its configuration", ErrOCI, len(layers), len(diffs))
	}
	m := &merged{}
	for i, l := range layers {
		if !slices.Contains(layerTypes, l.MediaType) {
			return nil, fmt.Errorf("%w: layer %d is of type %q", ErrOCI, i+1, l.MediaType)
		}
		if err := l.Digest.check(); err != nil {
			return nil, err
		}
		m.layers = append(m.layers, layer{src: &blobLayer{blobs: b, name: l.Digest.path(), digest: l.Digest, size: l.Size}, whiteouts: true})
	}
	return m, nil
}

// openDocker makes a source of an archive that `docker save` wrote (Docker Image Specification v1.2, "Combined Image JSON +
// Filesystem Changeset Format"). Its layers are known by the digest of their content alone.
func openDocker(b blobs) (Source, error) {
	var images []struct {
		Config   string
		RepoTags []string
		Layers   []string
	}
	if err := readJSON(b, dockerFile, &images); err != nil {
		return nil, err
	}
	if len(images) != 1 {
		return nil, fmt.Errorf("%w: the archive holds %d images, not one", ErrOCI, len(images))
	}
	var config struct {
		platform
		RootFS struct {
			DiffIDs []digest `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if err := readJSON(b, images[0].Config, &config); err != nil {
		return nil, err
	}
	names, diffs := images[0].Layers, config.RootFS.DiffIDs
	switch {
	case !config.wanted():
		return nil, fmt.Errorf("%w: it is for %s/%s, not %s/%s", ErrOCI, config.OS, config.Architecture, wantOS, wantArchitecture)
	case len(names) == 0 || len(names) > maxLayers || len(names) != len(diffs):
		return nil, fmt.Errorf("%w: %d layers, %d in its configuration", ErrOCI, len(names), len(diffs))
	}
	m := &merged{}
	for i, name := range names {
		if err := diffs[i].check(); err != nil {
			return nil, err
		}
		m.layers = append(m.layers, layer{src: &blobLayer{blobs: b, name: name, digest: diffs[i], size: -1}, whiteouts: true})
	}
	return m, nil
}

// blobLayer is a layer's archive. Each walk checks the blob's size and digest; what is wrong is known when
// the walk ends, so no walk's result may be used before.
type blobLayer struct {
	blobs  blobs
	name   string
	digest digest
	size   int64 // -1: not said
}

func (l *blobLayer) Walk(ctx context.Context, f WalkFunc) error {
	in, size, err := l.blobs.open(l.name)
	if err != nil {
		return err
	}
	defer in.Close()
	if l.size >= 0 && size != l.size {
		return fmt.Errorf("%w: %s has %d bytes, not %d", ErrOCI, l.digest, size, l.size)
	}
	v := l.digest.verify(in)
	stopped := false
	err = walkArchive(ctx, l.name, v, false, func(e Entry, content io.Reader) error {
		err := f(e, content)
		stopped = err != nil
		return err
	})
	if stopped || ctx.Err() != nil {
		return err
	}
	if wrong := v.finish(); wrong != nil { // which explains why it could not be read
		return wrong
	}
	return err
}

// readBlob reads the JSON document that a descriptor names.
func readBlob(b blobs, d descriptor, to any) error {
	if err := d.Digest.check(); err != nil {
		return err
	}
	in, size, err := b.open(d.Digest.path())
	if err != nil {
		return err
	}
	defer in.Close()
	if size != d.Size || size > maxJSON {
		return fmt.Errorf("%w: %s has %d bytes, not %d (at most %d)", ErrOCI, d.Digest, size, d.Size, maxJSON)
	}
	v := d.Digest.verify(in)
	data, err := io.ReadAll(v)
	if err != nil {
		return fmt.Errorf("read %s: %w", d.Digest, err)
	}
	if err := v.finish(); err != nil {
		return err
	}
	return decode(string(d.Digest), data, to)
}

func readJSON(b blobs, name string, to any) error {
	in, size, err := b.open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	if size > maxJSON {
		return fmt.Errorf("%w: %s has %d bytes, at most %d are read", ErrOCI, name, size, maxJSON)
	}
	data, err := io.ReadAll(in)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return decode(name, data, to)
}

func decode(name string, data []byte, to any) error {
	if err := json.Unmarshal(data, to); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrOCI, name, err)
	}
	return nil
}
