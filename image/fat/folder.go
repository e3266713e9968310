package fat

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// file is one entry of a folder.
type file struct {
	name   string
	folder bool
	first  uint32 // cluster; 0 for an empty file
	size   int64
	made   time.Time
}

// Attributes of an entry (specification, "Directory Structure").
const (
	attrVolume   = 0x08
	attrFolder   = 0x10
	attrLongName = 0x0f
)

// folder reads the folder that begins at a cluster, without its dots, and a volume's label in it.
func (f *Reader) folder(first uint32) (list []file, label string, err error) {
	raw, err := f.folderBytes(first)
	if err != nil {
		return nil, "", err
	}
	var long longName
	for at := 0; at+entrySize <= len(raw) && raw[at] != 0; at += entrySize {
		e := raw[at:][:entrySize]
		switch attr := e[11]; {
		case e[0] == 0xe5: // deleted
			long = longName{}
		case attr&0x3f == attrLongName:
			long.add(e)
		case attr&attrVolume != 0:
			label, long = strings.TrimRight(string(e[:11]), " "), longName{}
		default:
			name, ok := long.take(e)
			if !ok {
				if name, err = shortName(e); err != nil {
					return nil, "", err
				}
			}
			if name == "." || name == ".." {
				continue
			}
			if name == "" || strings.ContainsAny(name, "/\x00") || !utf8.ValidString(name) || len(name) > 255*3 {
				return nil, "", broken("folder", "an entry is named %q", name)
			}
			le := binary.LittleEndian
			found := file{name: name, folder: attr&attrFolder != 0, first: uint32(le.Uint16(e[26:])), size: int64(le.Uint32(e[28:])), made: dosTime(le.Uint16(e[24:]), le.Uint16(e[22:]))}
			if f.bits == 32 {
				found.first |= uint32(le.Uint16(e[20:])) << 16
			}
			if found.folder {
				found.size = 0
			}
			list = append(list, found)
		}
	}
	return list, label, nil
}

// folderBytes reads a folder's content. Cluster 0 means the root folder, which has a place of
// its own unless the table's entries have 32 bits.
func (f *Reader) folderBytes(first uint32) ([]byte, error) {
	if first == 0 && f.bits != 32 {
		raw := make([]byte, f.rootSize)
		return raw, readFull(f.r, raw, f.root)
	}
	if first == 0 {
		first = f.rootFirst
	}
	var raw []byte
	err := f.chain(first, func(cluster uint32) error {
		if int64(len(raw))+f.cluster > maxFolder {
			return broken(fmt.Sprintf("folder at cluster %d", first), "more than %d bytes", maxFolder)
		}
		piece := make([]byte, f.cluster)
		raw = append(raw, piece...)
		return readFull(f.r, raw[int64(len(raw))-f.cluster:], f.place(cluster))
	})
	return raw, err
}

// shortName gives a name of eight and three letters. Bits 3 and 4 of byte 12, Windows NT's, say that a part
// of it is in lower case.
func shortName(e []byte) (string, error) {
	base, ext := strings.TrimRight(string(e[:8]), " "), strings.TrimRight(string(e[8:11]), " ")
	for i := range 11 {
		if e[i] >= 0x80 || e[i] < ' ' {
			return "", broken("folder", "the short name %q is in an unknown code page and has no long form", base+"."+ext)
		}
	}
	if e[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base, nil
	}
	return base + "." + ext, nil
}

// longName gathers the entries of a long name, which stand before the short one, the last part
// first (specification, "Long File Name Implementation").
type longName struct {
	units    []uint16
	wanted   byte // number of the part that comes next; 0: none
	checksum byte
}

func (l *longName) add(e []byte) {
	number := e[0] & 0x3f
	if e[0]&0x40 != 0 {
		if number == 0 || number > 20 {
			*l = longName{}
			return
		}
		*l = longName{make([]uint16, int(number)*13), number, e[13]}
	} else if number != l.wanted || number == 0 || e[13] != l.checksum {
		*l = longName{}
		return
	}
	part := l.units[int(number-1)*13:][:0]
	for _, span := range [][2]int{{1, 11}, {14, 26}, {28, 32}} {
		for i := span[0]; i < span[1]; i += 2 {
			part = append(part, binary.LittleEndian.Uint16(e[i:]))
		}
	}
	l.wanted = number - 1
}

// take gives the long name of a short entry, if the parts before it belong to it.
func (l *longName) take(e []byte) (string, bool) {
	defer func() { *l = longName{} }()
	var sum byte
	for _, c := range e[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if l.units == nil || l.wanted != 0 || sum != l.checksum {
		return "", false
	}
	units := l.units
	for i, u := range units {
		if u == 0 {
			units = units[:i]
			break
		}
	}
	return string(utf16.Decode(units)), true
}

// dosTime takes a date and a time, which have no time zone, as UTC.
func dosTime(date, clock uint16) time.Time {
	if date == 0 {
		return time.Time{}
	}
	return time.Date(1980+int(date>>9), time.Month(date>>5&15), int(date&31), int(clock>>11), int(clock>>5&63), int(clock&31)*2, 0, time.UTC)
}
