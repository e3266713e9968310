package ovmf

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"

	"github.com/sealboot/sealboot/internal/guid"
)

// Report is what Inspect says about an image. Its JSON form is what `ovmf inspect --json` prints;
// the names of its fields stay.
type Report struct {
	SHA256      string        `json:"sha256"`
	Size        int           `json:"size"`
	Base        uint64        `json:"base"`         // where the image starts in guest memory
	SecretArea  *Area         `json:"secret_area"`  // null: the firmware takes no launch secret
	HashesArea  *Area         `json:"hashes_area"`  // null: the firmware checks no kernel
	ResetVector *uint32       `json:"reset_vector"` // where a second vCPU starts
	Table       []guid.GUID   `json:"table"`        // all entries of the table at the image's end
	Metadata    []Section     `json:"metadata"`     // pages that SEV-SNP prepares
	Volumes     []VolumeFacts `json:"volumes"`
	GRUB        *GRUBFacts    `json:"grub"` // null: no place for GRUB

	// Problems say why Bundle would refuse the image; none if it would not.
	Problems []string `json:"problems"`
}

// VolumeFacts describes a firmware volume.
type VolumeFacts struct {
	Name   guid.GUID `json:"name"`
	Packed bool      `json:"packed"` // inside the packed section, from whose start Offset is then counted
	Offset int       `json:"offset"`
	Size   int       `json:"size"`
	Files  int       `json:"files"`
	Free   int       `json:"free"`
}

// GRUBFacts describes the GRUB in the image.
type GRUBFacts struct {
	Size   int    `json:"size"`   // 0: the place is empty
	SHA256 string `json:"sha256"` // of the EFI application
	Room   int    `json:"room"`   // bytes that an application in its place can have in the unpacked volume
	Packed int    `json:"packed"` // bytes still free in the packed volume
}

// Inspect describes an image. It needs OVMF's table; whatever else is missing or malformed is a
// problem in the report.
func Inspect(data []byte) (*Report, error) {
	img, err := Parse(data)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(data)
	r := &Report{
		SHA256: hex.EncodeToString(sum[:]), Size: len(data), Base: img.Base(),
		Table: []guid.GUID{}, Metadata: append([]Section{}, img.Metadata()...), Volumes: []VolumeFacts{}, Problems: []string{},
	}
	for _, e := range img.Entries() {
		r.Table = append(r.Table, e.GUID)
	}
	if a, ok := img.SecretArea(); ok {
		r.SecretArea = &a
	} else {
		r.Problems = append(r.Problems, ErrNoSecretArea.Error())
	}
	if a, ok := img.HashesArea(); ok {
		r.HashesArea = &a
	}
	if eip, ok := img.ResetEIP(); ok {
		r.ResetVector = &eip
	}
	t, err := Unpack(data)
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
		return r, nil
	}
	packed := len(t.Volumes()) - len(t.Packed())
	for i, v := range t.Volumes() {
		r.Volumes = append(r.Volumes, VolumeFacts{v.Name, i >= packed, v.Offset, v.Size(), len(v.Files), v.Free})
	}
	if err := t.checkBootPaths(img); err != nil {
		r.Problems = append(r.Problems, err.Error())
	}
	v, file := t.grub()
	if file == nil {
		r.Problems = append(r.Problems, ErrNoGRUB.Error())
		return r, nil
	}
	r.GRUB = &GRUBFacts{Packed: t.parts[t.mainPart].volume.Free}
	application, err := file.application()
	if err != nil {
		r.Problems = append(r.Problems, err.Error())
		return r, nil
	}
	free := v.Free
	if v.Files[len(v.Files)-1] == file {
		free += align(file.size(), 8)
	}
	r.GRUB.Room = max(0, min(free, maxFileSize&^7)-(file.size()-len(application))-3) // 3: the next section's alignment
	if len(application) > 0 {
		sum := sha256.Sum256(application)
		r.GRUB.Size, r.GRUB.SHA256 = len(application), hex.EncodeToString(sum[:])
	}
	return r, nil
}

// BundledGRUB gives the EFI application that Bundle put into a firmware image.
func BundledGRUB(firmware []byte) ([]byte, error) {
	t, err := Unpack(firmware)
	if err != nil {
		return nil, err
	}
	_, file := t.grub()
	if file == nil {
		return nil, ErrNoGRUB
	}
	application, err := file.application()
	if err != nil {
		return nil, err
	}
	if err := checkEFIApplication(application); err != nil {
		return nil, err
	}
	return bytes.Clone(application), nil
}
