package lab

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
)

// MakeOCI makes a folder with an OCI image layout (image-spec 1.1) of layers, which are tar archives.
func MakeOCI(out string, layers ...string) error {
	blobs := filepath.Join(out, "blobs", "sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return err
	}
	type descriptor struct {
		MediaType string `json:"mediaType"`
		Digest    string `json:"digest"`
		Size      int    `json:"size"`
	}
	put := func(mediaType string, content []byte) (descriptor, error) {
		sum := sha256.Sum256(content)
		name := hex.EncodeToString(sum[:])
		return descriptor{mediaType, "sha256:" + name, len(content)}, os.WriteFile(filepath.Join(blobs, name), content, 0o644)
	}
	putJSON := func(mediaType string, value any) (descriptor, error) {
		content, err := json.Marshal(value)
		if err != nil {
			return descriptor{}, err
		}
		return put(mediaType, content)
	}
	const kind = "application/vnd.oci.image."
	var list []descriptor
	var ids []string
	for _, layer := range layers {
		content, err := os.ReadFile(layer)
		if err != nil {
			return err
		}
		d, err := put(kind+"layer.v1.tar", content)
		if err != nil {
			return err
		}
		list, ids = append(list, d), append(ids, d.Digest)
	}
	config, err := putJSON(kind+"config.v1+json", map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"type": "layers", "diff_ids": ids}})
	if err != nil {
		return err
	}
	manifest, err := putJSON(kind+"manifest.v1+json", map[string]any{"schemaVersion": 2, "mediaType": kind + "manifest.v1+json", "config": config, "layers": list})
	if err != nil {
		return err
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}})
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(filepath.Join(out, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(out, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}
