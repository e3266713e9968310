package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/ovmf"
)

// RecordVersion is the version of the record's form. A reader refuses any other.
const RecordVersion = 1

const maxRecord = 1 << 20 // bytes; a real record has about one thousand

// ErrRecord is wrapped by all complaints about a record's contents.
var ErrRecord = errors.New("boot record")

// Record is the boot record (record.json): what a key server must know to decide about the
// machines of one disk. It holds no secret.
//
// Its form is JSON with exactly these fields, in this order, indented by two spaces, hexadecimal
// in lower case, one newline at the end: a record has one form only, and ReadRecord refuses every other.
type Record struct {
	Version  int               `json:"version"` // RecordVersion
	Firmware FirmwareFacts     `json:"firmware"`
	Digests  []LaunchDigest    `json:"digests"` // one for each way to launch that may have the key
	Disk     Disk              `json:"disk"`
	MadeWith map[string]string `json:"made_with"` // what went in, and its version
}

// FirmwareFacts says which firmware was measured and where it takes its secret.
type FirmwareFacts struct {
	SHA256     Hash       `json:"sha256"`
	Size       int64      `json:"size"`
	SecretArea ovmf.Area  `json:"secret_area"`
	HashesArea *ovmf.Area `json:"hashes_area,omitempty"` // none: the firmware cannot check a kernel
}

// LaunchDigest is the digest of one way to launch.
type LaunchDigest struct {
	Launch
	Profile string `json:"profile,omitempty"` // name of the host profile that the launch is of, as far as it was said
	Digest  Hex    `json:"digest"`
}

// Launch is a way to launch: the same one has the same digest with the same firmware.
type Launch struct {
	Mode          Mode   `json:"mode"`
	VCPUs         int    `json:"vcpus,omitempty"` // SEV-ES and SNP, like all that follow up to the host
	VCPUType      string `json:"vcpu_type,omitempty"`
	VCPUSignature uint32 `json:"vcpu_signature,omitempty"` // where there is no type
	VMM           VMM    `json:"vmm,omitempty"`            // none: QEMU
	GuestFeatures uint64 `json:"guest_features,omitempty"` // SEV-ES and SNP
	OldHostKernel bool   `json:"old_host_kernel,omitempty"`
	KernelHashes  Hex    `json:"kernel_hashes,omitempty"` // SHA-256 of the hashes table, with kernel-hashes=on
	SVSM          Hex    `json:"svsm,omitempty"`          // SHA-256 of the SVSM
	VarsSize      int64  `json:"vars_size,omitempty"`     // with an SVSM
}

// Disk says which disk the key opens.
type Disk struct {
	UUID          string `json:"uuid"`       // of its LUKS header
	HeaderPin     Hash   `json:"header_pin"` // of its LUKS header, to be given to the guest with the key
	ContentDigest Hash   `json:"content_digest,omitzero"`
}

// Hash is 32 bytes, shown as hexadecimal.
type Hash [sha256.Size]byte

// MarshalText gives lower-case hexadecimal.
func (h Hash) MarshalText() ([]byte, error) { return Hex(h[:]).MarshalText() }

// UnmarshalText reads hexadecimal.
func (h *Hash) UnmarshalText(text []byte) error {
	var x Hex
	if err := x.UnmarshalText(text); err != nil {
		return err
	}
	if len(x) != len(h) {
		return fmt.Errorf("hash of %d bytes, not %d", len(x), len(h))
	}
	copy(h[:], x)
	return nil
}

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Hex is bytes shown as hexadecimal.
type Hex []byte

// MarshalText gives lower-case hexadecimal.
func (h Hex) MarshalText() ([]byte, error) { return []byte(hex.EncodeToString(h)), nil }

// UnmarshalText reads hexadecimal.
func (h *Hex) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(string(text))
	if err != nil {
		return err
	}
	*h = raw
	return nil
}

func (h Hex) String() string { return hex.EncodeToString(h) }

// NewRecord measures a firmware, launched in each of the ways of specs, for a disk.
func NewRecord(specs []Spec, disk Disk, madeWith map[string]string) (*Record, error) {
	if len(specs) == 0 {
		return nil, fmt.Errorf("%w: no way to launch", ErrRecord)
	}
	r, err := newRecord(specs[0].Firmware, disk, madeWith)
	if err != nil {
		return nil, err
	}
	for _, s := range specs {
		if err := r.Add(s); err != nil {
			return nil, err
		}
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// NewRecordOf makes a record of digests that DigestSet made of the firmware.
func NewRecordOf(firmware []byte, set []LaunchDigest, disk Disk, madeWith map[string]string) (*Record, error) {
	r, err := newRecord(firmware, disk, madeWith)
	if err != nil {
		return nil, err
	}
	if err := r.AddSet(firmware, set); err != nil {
		return nil, err
	}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	return r, nil
}

// newRecord makes a record without digests.
func newRecord(firmware []byte, disk Disk, madeWith map[string]string) (*Record, error) {
	img, err := ovmf.Parse(firmware)
	if err != nil {
		return nil, fmt.Errorf("read firmware: %w", err)
	}
	secret, ok := img.SecretArea()
	if !ok {
		return nil, ovmf.ErrNoSecretArea
	}
	r := &Record{
		Version:  RecordVersion,
		Firmware: FirmwareFacts{SHA256: sha256.Sum256(firmware), Size: int64(len(firmware)), SecretArea: secret},
		Disk:     disk,
		MadeWith: madeWith,
	}
	if r.MadeWith == nil {
		r.MadeWith = map[string]string{}
	}
	if hashes, ok := img.HashesArea(); ok {
		r.Firmware.HashesArea = &hashes
	}
	return r, nil
}

// Add measures one more way to launch the record's firmware. A digest for the same way is replaced.
func (r *Record) Add(s Spec) error {
	if err := r.isFor(s.Firmware); err != nil {
		return err
	}
	if s.Mode == SNPOVMFHash || s.OVMFHash != nil || s.X87Unset {
		return fmt.Errorf("%w: takes whole launches only", ErrRecord)
	}
	digest, err := Digest(s)
	if err != nil {
		return fmt.Errorf("measure mode %s: %w", s.Mode, err)
	}
	d := LaunchDigest{Launch: s.Launch(), Digest: digest}
	for i := range r.Digests {
		if r.Digests[i].key() == d.key() {
			r.Digests[i] = d
			return nil
		}
	}
	r.Digests = append(r.Digests, d)
	return nil
}

// isFor refuses another firmware than the record's.
func (r *Record) isFor(firmware []byte) error {
	if sum := Hash(sha256.Sum256(firmware)); sum != r.Firmware.SHA256 {
		return fmt.Errorf("%w: is for the firmware with SHA-256 %v, not %v", ErrRecord, r.Firmware.SHA256, sum)
	}
	return nil
}

// Launch keeps of a description what decides the digest beside the firmware.
func (s Spec) Launch() Launch {
	l := Launch{Mode: s.Mode}
	if s.HashKernel {
		sum := sha256.Sum256(KernelHashes(s.Kernel, s.Initrd, s.Append))
		l.KernelHashes = sum[:]
	}
	if s.Mode == SEV {
		return l
	}
	l.VCPUs = s.VCPUs
	if s.vmm() == QEMU {
		l.VCPUType, l.OldHostKernel = s.VCPUType, s.OldHostKernel
		if s.VCPUType == "" {
			l.VCPUSignature = s.VCPUSignature
		}
	} else {
		l.VMM = s.VMM
	}
	l.GuestFeatures = s.GuestFeatures
	if s.Mode == SNPSVSM {
		sum := sha256.Sum256(s.SVSM)
		l.SVSM, l.VarsSize = sum[:], s.VarsSize
	}
	return l
}

// key makes launches comparable.
func (d LaunchDigest) key() string { return fmt.Sprintf("%+v", d.Launch) }

// ReadRecord reads a record. It refuses more than 1 MiB, unknown fields, anything behind
// the record, any form but the one that Encode gives, and what Validate refuses.
func ReadRecord(in io.Reader) (*Record, error) {
	raw, err := io.ReadAll(io.LimitReader(in, maxRecord+1))
	if err != nil {
		return nil, fmt.Errorf("read boot record: %w", err)
	}
	if len(raw) > maxRecord {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrRecord, maxRecord)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	var r Record
	if err := d.Decode(&r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	again, err := r.Encode() // validates
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(raw, again) {
		return nil, fmt.Errorf("%w: not in the form that sealboot writes: it was changed, or something stands behind it", ErrRecord)
	}
	return &r, nil
}

// Encode gives the record's one form. It refuses what Validate refuses.
func (r *Record) Encode() ([]byte, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRecord, err)
	}
	return out.Bytes(), nil
}

// isUUID says whether s is a UUID as LUKS writes it, in lower case.
func isUUID(s string) bool {
	id, err := guid.Parse(s)
	return err == nil && id.String() == s
}

// Validate reports all that is wrong with the record at once.
func (r *Record) Validate() error {
	var errs []error
	complain := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("%w: "+format, append([]any{ErrRecord}, args...)...))
	}
	if r.Version != RecordVersion {
		complain("version %d, not %d", r.Version, RecordVersion)
	}
	f := r.Firmware
	if f.SHA256 == (Hash{}) || f.Size <= 0 || f.Size > ovmf.MaxSize {
		complain("firmware of %d bytes with SHA-256 %v", f.Size, f.SHA256)
	}
	for _, a := range []*ovmf.Area{&f.SecretArea, f.HashesArea} {
		if a != nil && (a.Base == 0 || a.Size == 0) {
			complain("an area of %d bytes at %#x", a.Size, a.Base)
		}
	}
	if len(r.Digests) == 0 {
		complain("no launch digest: no machine could have the key")
	}
	seen := map[string]bool{}
	for i, d := range r.Digests {
		if err := d.validate(); err != nil {
			complain("digest %d: %w", i, err)
		}
		if seen[d.key()] {
			complain("digest %d: second one for the same launch", i)
		}
		seen[d.key()] = true
	}
	if !isUUID(r.Disk.UUID) {
		complain("disk UUID %q", r.Disk.UUID)
	}
	if r.Disk.HeaderPin == (Hash{}) {
		complain("no header pin")
	}
	if r.MadeWith == nil {
		complain("nothing said about what it was made with")
	}
	return errors.Join(errs...)
}

func (d LaunchDigest) validate() error {
	measured := Spec{
		Mode: d.Mode, Firmware: []byte{0}, VCPUs: d.VCPUs, VCPUType: d.VCPUType, VCPUSignature: d.VCPUSignature,
		VMM: d.VMM, GuestFeatures: d.GuestFeatures, OldHostKernel: d.OldHostKernel,
		VarsSize: d.VarsSize,
	}
	if d.Mode == SNPSVSM {
		measured.SVSM = []byte{0}
	}
	l := measured.Launch()
	l.KernelHashes, l.SVSM = d.KernelHashes, d.SVSM
	switch {
	case d.Mode == SNPOVMFHash:
		return fmt.Errorf("mode %s is no launch", d.Mode)
	case measured.Validate() != nil:
		return measured.Validate()
	case (LaunchDigest{Launch: l}).key() != d.key():
		return fmt.Errorf("fields that mode %s does not have", d.Mode)
	case len(d.Digest) != d.Mode.DigestSize():
		return fmt.Errorf("%d bytes for mode %s, not %d", len(d.Digest), d.Mode, d.Mode.DigestSize())
	case (d.Mode == SNPSVSM) != (len(d.SVSM) == sha256.Size) || d.Mode != SNPSVSM && d.SVSM != nil:
		return fmt.Errorf("SVSM's SHA-256 of %d bytes", len(d.SVSM))
	case d.Profile != "" && !d.hasProfile():
		return fmt.Errorf("is not of a host profile %q", d.Profile)
	case len(d.KernelHashes) != 0 && len(d.KernelHashes) != sha256.Size:
		return fmt.Errorf("kernel hashes of %d bytes", len(d.KernelHashes))
	case bytes.Equal(d.Digest, make([]byte, len(d.Digest))):
		return errors.New("all zero")
	}
	return nil
}

// hasProfile says whether the launch is as its profile has it.
func (d LaunchDigest) hasProfile() bool {
	p, known := profileNamed(d.Profile)
	debugSwap := d.GuestFeatures&featureDebugSwap != 0
	return known && d.Mode.MeasuresVCPUs() && d.VMM == "" && p.OldHostKernel == d.OldHostKernel && p.DebugSwap == debugSwap
}
