package ovmf

import "fmt"

// ParseModule reads the tables of a service module such as Coconut-SVSM, which has OVMF's form. Only its entries and its
// SEV metadata are believed: the areas are a firmware's own, and real modules name places such as 0xdeadbeef there.
func ParseModule(data []byte) (*Image, error) {
	if len(data) > MaxSize {
		return nil, &FormatError{"image", 0, fmt.Sprintf("%d bytes, more than %d", len(data), MaxSize)}
	}
	entries, err := parseTable(data)
	if err != nil {
		return nil, err
	}
	img := &Image{data: data, entries: entries}
	offset, ok, err := img.word(MetadataGUID)
	if err != nil {
		return nil, fmt.Errorf("SEV metadata: %w", err)
	}
	if ok {
		if img.metadata, err = parseMetadata(data, offset); err != nil {
			return nil, err
		}
	}
	return img, nil
}
