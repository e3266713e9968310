package luks

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

const maxJSONDepth = 16 // LUKS2's own objects nest five deep

// parseJSON reads one JSON object and nothing behind it. encoding/json alone would take
// members twice and in any case of letters: readers would disagree about one header.
func parseJSON(text []byte) (map[string]any, error) {
	if !utf8.Valid(text) {
		return nil, refuse(ErrMalformed, "json", "not UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	value, err := parseValue(d, "json", 0)
	if err != nil {
		return nil, err
	}
	root, ok := value.(map[string]any)
	if !ok {
		return nil, refuse(ErrMalformed, "json", "not an object")
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, refuse(ErrMalformed, "json", "more than one value")
	}
	return root, nil
}

func parseValue(d *json.Decoder, path string, depth int) (any, error) {
	if depth > maxJSONDepth {
		return nil, refuse(ErrMalformed, path, "nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return nil, refuse(ErrMalformed, path, "%v", err)
	}
	switch token {
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, refuse(ErrMalformed, path, "%v", err)
			}
			key := name.(string) // the decoder lets nothing else be a name
			if _, twice := object[key]; twice {
				return nil, refuse(ErrMalformed, path, "member %q twice", key)
			}
			if object[key], err = parseValue(d, path+"."+key, depth+1); err != nil {
				return nil, err
			}
		}
		return object, closing(d, path)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			value, err := parseValue(d, path+"[]", depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, value)
		}
		return list, closing(d, path)
	}
	return token, nil
}

func closing(d *json.Decoder, path string) error {
	if _, err := d.Token(); err != nil {
		return refuse(ErrMalformed, path, "%v", err)
	}
	return nil
}

// object takes the members of a JSON object one by one; end refuses what nobody took. The first
// error stays.
type object struct {
	path string
	left map[string]any
	err  *error
}

func newObject(path string, members map[string]any, err *error) *object {
	return &object{path, members, err}
}

func (o *object) fail(name, format string, args ...any) {
	if *o.err == nil {
		*o.err = refuse(ErrMalformed, strings.TrimPrefix(o.path+"."+name, "."), format, args...)
	}
}

func (o *object) has(name string) bool {
	_, ok := o.left[name]
	return ok
}

func (o *object) take(name string) any {
	value, ok := o.left[name]
	if !ok {
		o.fail(name, "missing")
	}
	delete(o.left, name)
	return value
}

func (o *object) text(name string) string {
	s, ok := o.take(name).(string)
	if !ok {
		o.fail(name, "not a string")
	}
	return s
}

// number takes a JSON number from 0 to 2^31-1, which fits an int everywhere.
func (o *object) number(name string) int {
	n, _ := o.take(name).(json.Number)
	value, err := strconv.ParseUint(string(n), 10, 31)
	if err != nil || strconv.FormatUint(value, 10) != string(n) {
		o.fail(name, "%q is not a whole number from 0 to 2^31-1", n)
		return 0
	}
	return int(value)
}

// decimal takes a 64-bit number, which LUKS2 writes as a string; below 2^62, so that two can be
// added.
func (o *object) decimal(name string) int64 {
	s := o.text(name)
	value, err := strconv.ParseUint(s, 10, 62)
	if err != nil || strconv.FormatUint(value, 10) != s {
		o.fail(name, "%q is not a decimal number below 2^62", s)
		return 0
	}
	return int64(value)
}

func (o *object) bytes(name string, least, most int) []byte {
	s := o.text(name)
	value, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || base64.StdEncoding.EncodeToString(value) != s { // the decoder skips line ends
		o.fail(name, "not canonical base64")
		return nil
	}
	if len(value) < least || len(value) > most {
		o.fail(name, "%d bytes, want %d to %d", len(value), least, most)
		return nil
	}
	return value
}

func (o *object) object(name string) *object {
	members, ok := o.take(name).(map[string]any)
	if !ok {
		o.fail(name, "not an object")
	}
	return newObject(strings.TrimPrefix(o.path+"."+name, "."), members, o.err)
}

func (o *object) strings(name string) []string {
	list, ok := o.take(name).([]any)
	if !ok {
		o.fail(name, "not a list")
	}
	texts := make([]string, len(list))
	for i, value := range list {
		if texts[i], ok = value.(string); !ok {
			o.fail(name, "not a list of strings")
		}
	}
	return texts
}

// ids takes a list of object numbers, as digests name key slots and segments.
func (o *object) ids(name string) []int {
	var ids []int
	seen := map[int]bool{}
	for _, s := range o.strings(name) {
		id, err := parseID(s)
		if err != nil || seen[id] {
			o.fail(name, "%q is not a number, or stands twice", s)
			return nil
		}
		seen[id] = true
		ids = append(ids, id)
	}
	return ids
}

// end refuses the members that nobody took.
func (o *object) end() {
	if len(o.left) > 0 {
		o.fail(slices.Min(slices.Collect(maps.Keys(o.left))), "not known")
	}
}

// maxID is the highest number of a key slot (cryptsetup: LUKS2_KEYSLOTS_MAX is 32).
const maxID = 31

func parseID(s string) (int, error) {
	id, err := strconv.ParseUint(s, 10, 8)
	if err != nil || id > maxID || strconv.FormatUint(id, 10) != s {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", s, maxID)
	}
	return int(id), nil
}
