package main

import (
	"path/filepath"

	"github.com/sealboot/sealboot/image"
	"github.com/sealboot/sealboot/initramfs"
	"github.com/sealboot/sealboot/measure"
)

// built is what --json prints.
type built struct {
	Disk          string             `json:"disk"`
	Firmware      string             `json:"firmware"`
	Record        string             `json:"record"`
	Passphrase    string             `json:"passphrase"`
	DiskUUID      string             `json:"disk_uuid"`
	HeaderPin     string             `json:"header_pin"`
	ContentDigest string             `json:"content_digest"`
	Digests       []builtDigest      `json:"digests"`
	Kernels       []string           `json:"kernels"`
	Seconds       map[string]float64 `json:"seconds"`
}

type builtDigest struct {
	Mode    string `json:"mode"`
	VCPUs   int    `json:"vcpus,omitempty"`
	Profile string `json:"profile,omitempty"`
	Digest  string `json:"digest"`
}

func (b *buildRun) result(disk *image.Result, record *measure.Record, kernels []initramfs.Kernel) *built {
	dir := b.flags.output
	r := &built{
		Disk: filepath.Join(dir, diskFile), Firmware: filepath.Join(dir, firmwareFile),
		Record: filepath.Join(dir, recordFile), Passphrase: filepath.Join(dir, passphraseFile),
		DiskUUID: disk.DiskUUID, HeaderPin: disk.HeaderPin.String(), ContentDigest: measure.Hash(disk.ContentDigest).String(),
		Kernels: versions(kernels), Seconds: b.seconds,
	}
	for _, d := range record.Digests {
		r.Digests = append(r.Digests, builtDigest{string(d.Mode), d.VCPUs, d.Profile, d.Digest.String()})
	}
	return r
}

func versions(kernels []initramfs.Kernel) []string {
	var list []string
	for _, k := range kernels {
		list = append(list, k.Version)
	}
	return list
}
