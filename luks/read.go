package luks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
)

// Copy is one of the two copies of a LUKS2 header.
type Copy int

const (
	Primary Copy = iota
	Secondary
)

func (c Copy) String() string { return [...]string{"primary", "secondary"}[c&1] }

// Status says where the header came from.
type Status struct {
	Version  int    // 1 or 2
	Used     Copy   // the copy that everything was taken from
	Other    error  // why the other copy was not as good: nil, ErrStale, or what is damaged
	Sequence uint64 // grows with each change; 0 for LUKS1
}

// Header is a whole header, key slots included. Its methods may not run at the same time as one
// that changes it.
type Header struct {
	version int
	copies  [2]*binaryHeader // nil for LUKS1
	uuid    string           // as it stands in the header
	label   string
	meta    *metadata
	status  Status
	stale   *metadata // what an older copy still names; nil when there is none
}

// Read reads a LUKS2 or LUKS1 header from a device of the given size under [DefaultLimits].
func Read(r io.ReaderAt, size int64) (*Header, error) { return ReadWithLimits(r, size, DefaultLimits) }

// ReadWithLimits is Read with bounds of the caller's.
func ReadWithLimits(r io.ReaderAt, size int64, limits Limits) (*Header, error) {
	start, err := readAt(r, size, 0, binarySize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotLUKS, err)
	}
	if bytes.HasPrefix(start, magicPrimary) && start[offsetVersion] == 0 && start[offsetVersion+1] == 1 {
		return readLUKS1(r, size, start, limits)
	}
	primary, primaryErr := readCopy(r, size, 0, magicPrimary)
	secondary, secondaryErr := readSecondary(r, size, primary)
	h := &Header{version: 2}
	if err := h.choose(primary, primaryErr, secondary, secondaryErr); err != nil {
		return nil, err
	}
	if err := h.meta.validate(h.copies[h.status.Used].size, size, limits); err != nil {
		return nil, err
	}
	if h.stale != nil {
		if err := h.stale.validate(h.copies[h.status.Used].size, size, limits); err != nil {
			return nil, fmt.Errorf("%v copy: %w", 1-h.status.Used, err)
		}
	}
	if err := h.readSlots(r, size); err != nil {
		return nil, err
	}
	return h, nil
}

// copyImage is a copy whose checksum is right.
type copyImage struct {
	at    int64
	bytes []byte
}

// readCopy reads one copy. An error means that there is none, or that it is damaged.
func readCopy(r io.ReaderAt, size, at int64, magic []byte) (*copyImage, error) {
	start, err := readAt(r, size, at, binarySize)
	if err != nil {
		return nil, err
	}
	whole, sumAlg, err := measureCopy(start, magic)
	if err != nil {
		return nil, err
	}
	rest, err := readAt(r, size, at+binarySize, whole-binarySize)
	if err != nil {
		return nil, err
	}
	image := append(start, rest...)
	if err := checkSum(image, sumAlg); err != nil {
		return nil, err
	}
	return &copyImage{at, image}, nil
}

// readSecondary finds the second copy behind the first one or, if that is damaged, at one of
// the places where it can be.
func readSecondary(r io.ReaderAt, size int64, primary *copyImage) (*copyImage, error) {
	if primary != nil {
		return readCopyOf(r, size, int64(len(primary.bytes)))
	}
	var found *copyImage
	var problem error = ErrNotLUKS
	for _, at := range headerSizes {
		c, err := readCopyOf(r, size, at)
		switch {
		case err == nil && found != nil:
			return nil, refuse(ErrCopies, "secondary header", "one at %d and one at %d, and no primary to choose", found.at, at)
		case err == nil:
			found = c
		case !errors.Is(err, ErrNotLUKS) && !errors.Is(err, io.ErrUnexpectedEOF):
			problem = err
		}
	}
	if found == nil {
		return nil, problem
	}
	return found, nil
}

func readCopyOf(r io.ReaderAt, size, at int64) (*copyImage, error) {
	c, err := readCopy(r, size, at, magicSecondary)
	if err == nil && int64(len(c.bytes)) != at {
		return nil, refuse(ErrSize, "hdr_size", "%d in the copy at %d", len(c.bytes), at)
	}
	return c, err
}

// choose takes the newest whole copy.
func (h *Header) choose(primary *copyImage, primaryErr error, secondary *copyImage, secondaryErr error) error {
	images := [2]*copyImage{primary, secondary}
	metas := [2]*metadata{}
	for i, image := range images {
		if image == nil {
			continue
		}
		bin, meta, err := image.parse()
		if err != nil {
			return fmt.Errorf("%v copy: %w", Copy(i), err)
		}
		h.copies[i], metas[i] = bin, meta
	}
	p, s := h.copies[Primary], h.copies[Secondary]
	switch {
	case p == nil && s == nil && errors.Is(primaryErr, ErrNotLUKS) && errors.Is(secondaryErr, ErrNotLUKS):
		return ErrNotLUKS
	case p == nil && s == nil:
		return fmt.Errorf("%w: primary: %w; secondary: %w", ErrDamaged, primaryErr, secondaryErr)
	case p == nil:
		h.status = Status{Used: Secondary, Other: primaryErr}
	case s == nil:
		h.status = Status{Used: Primary, Other: secondaryErr}
	case p.seqID > s.seqID:
		h.status = Status{Used: Primary, Other: ErrStale}
	case p.seqID < s.seqID:
		h.status = Status{Used: Secondary, Other: ErrStale}
	case !sameCopies(primary.bytes, secondary.bytes):
		return &FieldError{Field: "secondary header", Kind: ErrCopies}
	}
	used, other := h.status.Used, 1-h.status.Used
	bin := h.copies[used]
	h.meta, h.uuid, h.label = metas[used], bin.uuid, bin.label
	h.status.Version, h.status.Sequence = 2, bin.seqID
	if h.copies[other] != nil && h.status.Other != nil {
		if h.copies[other].size != bin.size || h.copies[other].uuid != bin.uuid {
			return refuse(ErrCopies, "secondary header", "it belongs to another header")
		}
		h.stale = metas[other]
	}
	// The other copy is written anew with the next change, from this one.
	twin := *bin
	twin.offset = map[Copy]int64{Primary: 0, Secondary: bin.size}[other]
	if h.copies[other] != nil {
		twin.salt = h.copies[other].salt
	}
	h.copies[other] = &twin
	return nil
}

// sameCopies compares all but the members that differ by design: magic, salt, offset, checksum.
func sameCopies(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for _, part := range [][2]int{{offsetVersion, offsetSalt}, {offsetUUID, offsetSelf}, {binarySize, len(a)}} {
		if !bytes.Equal(a[part[0]:part[1]], b[part[0]:part[1]]) {
			return false
		}
	}
	return true
}

func (c *copyImage) parse() (*binaryHeader, *metadata, error) {
	bin, err := parseBinary(c.bytes, c.at)
	if err != nil {
		return nil, nil, err
	}
	text, rest, found := bytes.Cut(c.bytes[binarySize:], []byte{0})
	if !found || !isZero(rest) {
		return nil, nil, refuse(ErrMalformed, "json", "something other than zeros behind it")
	}
	meta, err := parseMetadata(text)
	if err != nil {
		return nil, nil, err
	}
	return bin, meta, nil
}

// readSlots reads the areas of all key slots: at most 32 of 256 KB.
func (h *Header) readSlots(r io.ReaderAt, size int64) error {
	for _, id := range slices.Sorted(maps.Keys(h.meta.slots)) {
		s := h.meta.slots[id]
		material, err := readAt(r, size, s.offset, areaSize(s.keyBytes))
		if err != nil {
			return fmt.Errorf("read key slot %d: %w", id, err)
		}
		s.material = material
	}
	return nil
}

// readAt reads n bytes, all inside the device.
func readAt(r io.ReaderAt, size, at, n int64) ([]byte, error) {
	if at < 0 || n < 0 || n > size || at > size-n {
		return nil, fmt.Errorf("read %d bytes at %d of %d: %w", n, at, size, io.ErrUnexpectedEOF)
	}
	b := make([]byte, n)
	if got, err := r.ReadAt(b, at); got < len(b) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read %d bytes at %d: %w", n, at, err)
	}
	return b, nil
}

// Status says which copy the header was taken from, and what ails the other one.
func (h *Header) Status() Status { return h.status }

// UUID gives the disk's identifier, as it stands in the header.
func (h *Header) UUID() string { return h.uuid }

// Label gives the disk's label, empty if it has none.
func (h *Header) Label() string { return h.label }

// Segment says where the data lies and how it is encrypted.
func (h *Header) Segment() Segment { return h.meta.segment }
