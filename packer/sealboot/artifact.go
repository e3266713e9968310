package sealboot

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// BuilderID tells other post-processors whose artifact it is.
const BuilderID = "sealboot.post-processor.sealboot"

// Artifact is an encrypted disk, the firmware that unlocks it, and their boot record.
//
// The passphrase is not among its files: a later post-processor that uploads or packs them would hand it to the
// host together with the disk, and Packer removes the files of an artifact that was worked into another, while the
// passphrase is the only way into the disk. State("passphrase_file") names it.
type Artifact struct {
	Disk          string `json:"disk"`
	Firmware      string `json:"firmware"`
	Record        string `json:"record"`
	Passphrase    string `json:"passphrase"` // the name of its file
	DiskUUID      string `json:"disk_uuid"`
	HeaderPin     string `json:"header_pin"`
	ContentDigest string `json:"content_digest"`
}

// newArtifact reads what `sealboot build --json` printed, and looks whether it is so.
func newArtifact(printed []byte) (*Artifact, error) {
	a := new(Artifact)
	if err := json.Unmarshal(printed, a); err != nil {
		return nil, fmt.Errorf("read what sealboot printed: %w: is it another version than this plugin's?", err)
	}
	if a.DiskUUID == "" {
		return nil, errors.New("sealboot printed no disk_uuid: is it another version than this plugin's?")
	}
	for _, path := range append(a.Files(), a.Passphrase) {
		if info, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("look for what sealboot made: %w", err)
		} else if !info.Mode().IsRegular() {
			return nil, fmt.Errorf("sealboot made %s, which is not a file", path)
		}
	}
	return a, nil
}

// BuilderId, Files, Id, String, State and Destroy are Packer's interface.
func (*Artifact) BuilderId() string { return BuilderID }
func (a *Artifact) Files() []string { return []string{a.Disk, a.Firmware, a.Record} }
func (a *Artifact) Id() string      { return a.DiskUUID }

func (a *Artifact) String() string {
	return fmt.Sprintf("encrypted disk %s with %s and %s; its passphrase is in %s", a.Disk, filepath.Base(a.Firmware), filepath.Base(a.Record), a.Passphrase)
}

func (a *Artifact) State(name string) any {
	switch name {
	case "passphrase_file":
		return a.Passphrase
	case "disk_uuid":
		return a.DiskUUID
	case "header_pin":
		return a.HeaderPin
	case "content_digest":
		return a.ContentDigest
	}
	return nil
}

// Destroy removes the artifact's files, and leaves the passphrase.
func (a *Artifact) Destroy() error {
	var failed []error
	for _, path := range a.Files() {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			failed = append(failed, err)
		}
	}
	return errors.Join(failed...)
}
