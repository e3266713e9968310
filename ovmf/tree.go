package ovmf

import (
	"bytes"
	"fmt"
)

// Tree is a firmware image taken apart: its volumes, and those inside its one packed section.
//
// Pack puts it together again. What Unpack accepts it gives back to the byte: packed
// sections whose contents did not change keep their old packed form.
type Tree struct {
	parts []part // the image from its start to its end

	main      *File     // the file in one of the parts that holds the packed section
	mainPart  int       // index in parts
	outer     []section // sections of main
	packed    int       // index in outer of the packed section
	unpacked  []byte    // what the packed section held
	inner     []section // the sections in it
	innerFV   []*Volume // the volume in each of those, or nil
	innerBase []int     // where it stands in unpacked
}

// part is a volume or, where volume is nil, bytes between volumes.
type part struct {
	volume *Volume
	raw    []byte
}

// blockSize is what volumes in a flash image are aligned to (edk2 OvmfPkg/Include/Fdf/OvmfPkgDefines.fdf.inc).
const blockSize = 4096

// maxVolumes bounds the volumes of an image, and those of its packed section. edk2 makes 3 and 2.
const maxVolumes = 16

// Unpack takes an image apart. Anything malformed is a *FormatError. The Tree refers to data,
// which must not change.
func Unpack(data []byte) (*Tree, error) {
	if len(data) > MaxSize {
		return nil, &FormatError{"image", 0, fmt.Sprintf("%d bytes, more than %d", len(data), MaxSize)}
	}
	t := &Tree{}
	for at := 0; at < len(data); {
		if !isVolume(data[at:]) {
			end := min(at+blockSize, len(data))
			if n := len(t.parts); n > 0 && t.parts[n-1].volume == nil {
				last := &t.parts[n-1]
				last.raw = data[at-len(last.raw) : end]
			} else {
				t.parts = append(t.parts, part{raw: data[at:end]})
			}
			at = end
			continue
		}
		if len(t.parts) == 2*maxVolumes {
			return nil, &FormatError{"image", at, fmt.Sprintf("more than %d volumes", maxVolumes)}
		}
		v, err := parseVolume(data[at:], fmt.Sprintf("volume at %#x", at))
		if err != nil {
			return nil, err
		}
		v.Offset = at
		t.parts = append(t.parts, part{volume: v})
		for _, f := range v.Files {
			if f.Type != fileVolumeImage {
				continue
			}
			if t.main != nil {
				return nil, &FormatError{fmt.Sprintf("volume at %#x", at), 0, "a second file that holds volumes"}
			}
			t.main, t.mainPart = f, len(t.parts)-1
		}
		at += v.Size()
	}
	if t.main == nil {
		return nil, &FormatError{"image", 0, "no file that holds volumes"}
	}
	if err := t.unpackMain(); err != nil {
		return nil, err
	}
	return t, nil
}

// unpackMain takes apart the file that holds the packed section.
func (t *Tree) unpackMain() (err error) {
	where := fmt.Sprintf("file %v", t.main.GUID)
	if t.outer, err = parseSections(t.main.Body, where); err != nil {
		return err
	}
	t.packed = -1
	for i, s := range t.outer {
		id, attributes, _, data, ok := s.guided()
		if !ok || id != lzmaGUID || attributes != guidedProcessing {
			continue
		}
		if t.packed >= 0 {
			return &FormatError{where, 0, "a second packed section"}
		}
		t.packed = i
		if t.unpacked, err = unpackLZMA(data); err != nil {
			return &FormatError{where, 0, err.Error()}
		}
	}
	if t.packed < 0 {
		return &FormatError{where, 0, "no section packed with LZMA"}
	}
	where = "packed section"
	if t.inner, err = parseSections(t.unpacked, where); err != nil {
		return err
	}
	t.innerFV, t.innerBase = make([]*Volume, len(t.inner)), make([]int, len(t.inner))
	at, volumes := 0, 0
	for i, s := range t.inner {
		at = align(at, 4) + s.headerSize()
		if s.kind == sectionVolumeImage {
			where := fmt.Sprintf("packed volume at %#x", at)
			if volumes++; volumes > maxVolumes {
				return &FormatError{where, 0, fmt.Sprintf("more than %d volumes", maxVolumes)}
			}
			v, err := parseVolume(s.data, where)
			if err != nil {
				return err
			}
			if v.Size() != len(s.data) {
				return &FormatError{where, v.Size(), fmt.Sprintf("%d bytes behind the volume", len(s.data)-v.Size())}
			}
			v.Offset = at
			t.innerFV[i] = v
		}
		at += len(s.data)
	}
	return nil
}

// Volumes gives all volumes: those of the image itself, then those of its packed section.
func (t *Tree) Volumes() []*Volume {
	var all []*Volume
	for _, p := range t.parts {
		if p.volume != nil {
			all = append(all, p.volume)
		}
	}
	return append(all, t.Packed()...)
}

// Packed gives the volumes of the packed section.
func (t *Tree) Packed() []*Volume {
	var all []*Volume
	for _, v := range t.innerFV {
		if v != nil {
			all = append(all, v)
		}
	}
	return all
}

// Pack puts the image together.
func (t *Tree) Pack() ([]byte, error) { return t.pack(packLZMA) }

func (t *Tree) pack(compress func([]byte) ([]byte, error)) ([]byte, error) {
	inner := make([]section, len(t.inner))
	copy(inner, t.inner)
	for i, v := range t.innerFV {
		if v != nil {
			inner[i].data = v.encode()
		}
	}
	main := t.parts[t.mainPart].volume
	if unpacked := encodeSections(inner); !bytes.Equal(unpacked, t.unpacked) {
		var err error
		if main, err = t.repacked(unpacked, compress); err != nil {
			return nil, err
		}
	}
	var out []byte
	for i, p := range t.parts {
		switch {
		case i == t.mainPart:
			out = append(out, main.encode()...)
		case p.volume != nil:
			out = append(out, p.volume.encode()...)
		default:
			out = append(out, p.raw...)
		}
	}
	return out, nil
}

// repacked gives the volume of the main file with new contents in its packed section.
func (t *Tree) repacked(unpacked []byte, compress func([]byte) ([]byte, error)) (*Volume, error) {
	old := t.parts[t.mainPart].volume
	if old.Files[len(old.Files)-1] != t.main {
		return nil, &FormatError{fmt.Sprintf("file %v", t.main.GUID), 0, "other files stand behind it and would move"}
	}
	data, err := compress(unpacked)
	if err != nil {
		return nil, err
	}
	outer := make([]section, len(t.outer))
	copy(outer, t.outer)
	_, _, head, _, _ := outer[t.packed].guided()
	outer[t.packed].data = append(bytes.Clone(head), data...)
	file := *t.main
	file.Body = encodeSections(outer)
	room := align(t.main.size(), 8) + old.Free
	if need := align(file.size(), 8); need > room || file.size() > maxFileSize {
		return nil, &TooLargeError{Volume: "compressed firmware volume", Need: need, Room: min(room, maxFileSize)}
	}
	v := *old
	v.Files = make([]*File, len(old.Files))
	for i, f := range old.Files {
		if v.Files[i] = f; f == t.main {
			v.Files[i] = &file
		}
	}
	v.Free = room - align(file.size(), 8)
	return &v, nil
}

// TooLargeError says that something does not fit its volume. Sizes are in bytes.
type TooLargeError struct {
	Volume     string
	Need, Room int
}

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("%s needs %d bytes and has room for %d: %d too many", e.Volume, e.Need, e.Room, e.Need-e.Room)
}
