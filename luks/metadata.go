package luks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
)

// Segment is where the data lies and how it is encrypted.
type Segment struct {
	Offset     int64 // bytes from the start of the device
	Size       int64 // bytes; 0: up to the end of the device
	SectorSize int
	IVTweak    uint64 // added to the number of each 512-byte sector
	Cipher     string
	KeyBytes   int
}

// DataSize gives the bytes of data on a device of this size: whole sectors only.
func (s Segment) DataSize(device int64) int64 {
	size := s.Size
	if size == 0 {
		size = max(device-s.Offset, 0)
	}
	return size - size%int64(s.SectorSize)
}

// keyslot is one way to the volume key: the key, split, encrypted under a stretched passphrase.
type keyslot struct {
	keyBytes int
	priority int // 0 ignore, 1 normal, 2 prefer
	afHash   string
	offset   int64 // of the area, from the start of the device
	size     int64
	cipher   string // of the area
	areaKey  int    // bytes of the key of the area
	kdf      KDF
	salt     []byte
	material []byte // the area's first keyBytes*stripes bytes, encrypted
}

// metadata is what the JSON area says (LUKS2 specification, "JSON Metadata Format").
type metadata struct {
	slots        map[int]*keyslot
	tokens       map[string]map[string]any // kept as they are: other programs' business
	segment      Segment
	digest       digest
	flags        []string
	jsonSize     int64
	keyslotsSize int64
}

const (
	cipherXTS    = "aes-xts-plain64"
	alignment    = 4096 // of areas (LUKS2 specification, "Keyslots Area")
	maxSlotsSize = 128 << 20
)

func parseMetadata(text []byte) (*metadata, error) {
	members, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	root := newObject("", members, &err)
	m := &metadata{slots: map[int]*keyslot{}, tokens: map[string]map[string]any{}}
	config := root.object("config")
	m.jsonSize = config.decimal("json_size")
	m.keyslotsSize = config.decimal("keyslots_size")
	if config.has("flags") {
		m.flags = config.strings("flags")
	}
	if config.has("requirements") {
		requirements := config.object("requirements")
		if requirements.has("mandatory") {
			if needs := requirements.strings("mandatory"); len(needs) > 0 && err == nil {
				err = refuse(ErrUnsupported, "config.requirements", "%q", needs)
			}
		}
		requirements.end()
	}
	config.end()
	slots := root.object("keyslots")
	for _, name := range slices.Sorted(maps.Keys(slots.left)) {
		id, bad := parseID(name)
		if bad != nil {
			slots.fail(name, "%v", bad)
			break
		}
		m.slots[id] = parseKeyslot(slots.object(name))
	}
	segments := root.object("segments")
	if err == nil && len(segments.left) != 1 {
		err = refuse(ErrUnsupported, "segments", "%d of them, want 1", len(segments.left))
	}
	m.segment = parseSegment(segments.object("0"))
	digests := root.object("digests")
	if err == nil && len(digests.left) != 1 {
		err = refuse(ErrDigest, "digests", "%d of them, want 1", len(digests.left))
	}
	m.digest = m.parseDigest(digests.object("0"))
	tokens := root.object("tokens")
	for _, name := range slices.Sorted(maps.Keys(tokens.left)) {
		m.tokens[name] = parseToken(tokens, name)
	}
	root.end()
	if err != nil {
		return nil, err
	}
	return m, nil
}

// supported refuses a type, cipher or other name that is not the one that we know.
func (o *object) supported(kind error, name string, known ...string) string {
	s := o.text(name)
	if *o.err == nil && !slices.Contains(known, s) {
		*o.err = refuse(kind, o.path+"."+name, "%q", s)
	}
	return s
}

func parseKeyslot(o *object) *keyslot {
	o.supported(ErrUnsupported, "type", "luks2")
	s := &keyslot{keyBytes: o.number("key_size"), priority: 1}
	if o.has("priority") {
		if s.priority = o.number("priority"); s.priority > 2 {
			o.fail("priority", "%d", s.priority)
		}
	}
	af := o.object("af")
	af.supported(ErrUnsupported, "type", "luks1")
	if n := af.number("stripes"); n != stripes {
		af.fail("stripes", "%d, want %d", n, stripes)
	}
	s.afHash = af.text("hash")
	af.end()
	area := o.object("area")
	area.supported(ErrUnsupported, "type", "raw")
	s.cipher = area.supported(ErrCipher, "encryption", cipherXTS)
	s.areaKey = area.number("key_size")
	s.offset, s.size = area.decimal("offset"), area.decimal("size")
	area.end()
	kdf := o.object("kdf")
	s.kdf.Type = KDFType(kdf.supported(ErrUnsupported, "type", string(PBKDF2), string(Argon2i), string(Argon2id)))
	if s.kdf.Type == PBKDF2 {
		s.kdf.Hash, s.kdf.Iterations = kdf.text("hash"), kdf.number("iterations")
	} else {
		s.kdf.Time, s.kdf.MemoryKiB, s.kdf.Parallel = kdf.number("time"), kdf.number("memory"), kdf.number("cpus")
	}
	s.salt = kdf.bytes("salt", minSalt, maxSalt)
	kdf.end()
	o.end()
	return s
}

func parseSegment(o *object) Segment {
	o.supported(ErrUnsupported, "type", "crypt")
	s := Segment{Offset: o.decimal("offset"), IVTweak: uint64(o.decimal("iv_tweak"))}
	if size, _ := o.left["size"].(string); size == "dynamic" {
		o.take("size")
	} else if s.Size = o.decimal("size"); s.Size == 0 {
		o.fail("size", "0")
	}
	s.Cipher = o.supported(ErrCipher, "encryption", cipherXTS)
	s.SectorSize = o.number("sector_size")
	o.end()
	return s
}

func (m *metadata) parseDigest(o *object) digest {
	o.supported(ErrDigest, "type", "pbkdf2")
	d := digest{hash: o.text("hash"), iterations: o.number("iterations")}
	d.salt = o.bytes("salt", minSalt, maxSalt)
	d.value = o.bytes("digest", 0, maxDigest)
	if *o.err == nil && len(d.value) < minDigest {
		*o.err = refuse(ErrDigest, o.path+".digest", "%d bytes, want at least %d", len(d.value), minDigest)
	}
	if segments := o.ids("segments"); !slices.Equal(segments, []int{0}) {
		o.fail("segments", "%v, want 0 alone", segments)
	}
	slots := o.ids("keyslots")
	if len(slots) != len(m.slots) {
		o.fail("keyslots", "%d named, %d there", len(slots), len(m.slots))
	}
	for _, id := range slots {
		if m.slots[id] == nil {
			o.fail("keyslots", "%d does not exist", id)
		}
	}
	o.end()
	return d
}

// parseToken checks only what LUKS2 says of all tokens, and keeps the rest.
func parseToken(tokens *object, name string) map[string]any {
	if _, err := parseID(name); err != nil {
		tokens.fail(name, "%v", err)
		return nil
	}
	token := tokens.object(name)
	kept := maps.Clone(token.left)
	token.text("type")
	token.ids("keyslots")
	return kept
}

func decimal(n int64) string     { return strconv.FormatInt(n, 10) }
func encoded(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// text writes the JSON. Maps are written in the order of their keys, so equal metadata gives
// equal bytes.
func (m *metadata) text() ([]byte, error) {
	type members = map[string]any
	slots, names := members{}, []string{}
	for _, id := range slices.Sorted(maps.Keys(m.slots)) {
		s := m.slots[id]
		kdf := members{"type": s.kdf.Type, "salt": encoded(s.salt)}
		if s.kdf.Type == PBKDF2 {
			kdf["hash"], kdf["iterations"] = s.kdf.Hash, s.kdf.Iterations
		} else {
			kdf["time"], kdf["memory"], kdf["cpus"] = s.kdf.Time, s.kdf.MemoryKiB, s.kdf.Parallel
		}
		slot := members{
			"type": "luks2", "key_size": s.keyBytes, "kdf": kdf,
			"af":   members{"type": "luks1", "stripes": stripes, "hash": s.afHash},
			"area": members{"type": "raw", "offset": decimal(s.offset), "size": decimal(s.size), "encryption": s.cipher, "key_size": s.areaKey},
		}
		if s.priority != 1 {
			slot["priority"] = s.priority
		}
		slots[strconv.Itoa(id)] = slot
		names = append(names, strconv.Itoa(id))
	}
	size := "dynamic"
	if m.segment.Size != 0 {
		size = decimal(m.segment.Size)
	}
	config := members{"json_size": decimal(m.jsonSize), "keyslots_size": decimal(m.keyslotsSize)}
	if len(m.flags) > 0 {
		config["flags"] = m.flags
	}
	root := members{
		"config": config, "keyslots": slots, "tokens": m.tokens,
		"segments": members{"0": members{
			"type": "crypt", "offset": decimal(m.segment.Offset), "size": size, "iv_tweak": strconv.FormatUint(m.segment.IVTweak, 10),
			"encryption": m.segment.Cipher, "sector_size": m.segment.SectorSize,
		}},
		"digests": members{"0": members{
			"type": "pbkdf2", "keyslots": names, "segments": []string{"0"}, "hash": m.digest.hash,
			"iterations": m.digest.iterations, "salt": encoded(m.digest.salt), "digest": encoded(m.digest.value),
		}},
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(root); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), nil
}
