package wire

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
)

// Administrators' messages are structs whose fields say their form: `json` has the name, `wire` what the value must be.
//
//	[]byte         base64 of the lengths in "min-max"
//	string         printable ASCII, of the form named, see forms; without one, at most 4,096 characters
//	int64, uint8   a whole number, not negative
//	guid.GUID      its text, lower case, not zero
//	time.Time      RFC 3339, UTC, whole seconds
//	[]string, []T  a list of texts, or of messages

// forms are the texts that are more than any text.
var forms = map[string]*regexp.Regexp{
	"name":    regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`),
	"sha256":  regexp.MustCompile(`^[0-9a-f]{64}$`),
	"digest":  regexp.MustCompile(`^([0-9a-f]{64}|[0-9a-f]{96})?$`),
	"address": regexp.MustCompile(`^[0-9A-Fa-f.:]{0,45}$`),
	"state":   regexp.MustCompile(`^(valid|revoked)$`),
	"verdict": regexp.MustCompile(`^(release|refuse)$`),
	"kind":    regexp.MustCompile(`^(image|digest|chip|secret)$`),
	"holder":  regexp.MustCompile(`^(token|certificate)$`),
	"roles":   regexp.MustCompile(`^(register|release|audit|admin)(,(register|release|audit|admin)){0,3}$`),
}

const maxText = 4 << 10

// Form gives the regular expression of a text's form, for those who describe the messages.
func Form(name string) string {
	if form := forms[name]; form != nil {
		return form.String()
	}
	return ""
}

// Decode reads an administrator's message of at most most bytes. On an error it gives the zero message.
func Decode[M any](r io.Reader, most int64) (M, error) {
	var m, zero M
	v := reflect.ValueOf(&m).Elem()
	o := readNested(r, most, depth(v.Type()))
	o.fill(v)
	if err := o.end(); err != nil {
		return zero, err
	}
	return m, nil
}

// depth is how deep the lists of a message are.
func depth(t reflect.Type) (deep int) {
	for i := range t.NumField() {
		switch f := t.Field(i).Type; {
		case f.Kind() != reflect.Slice || f.Elem().Kind() == reflect.Uint8:
		case f.Elem().Kind() == reflect.Struct:
			deep = max(deep, 1+depth(f.Elem()))
		default:
			deep = max(deep, 1)
		}
	}
	return deep
}

// fill takes the fields of a message.
func (o *object) fill(v reflect.Value) {
	for i := range v.NumField() {
		about, field := v.Type().Field(i), v.Field(i)
		name, form := about.Tag.Get("json"), about.Tag.Get("wire")
		switch to := field.Addr().Interface().(type) {
		case *[]byte:
			low, high := bounds(form)
			*to = o.bytes(name, low, high)
		case *string:
			*to = o.formed(name, form)
		case *int64:
			*to = int64(o.number(name, 63))
		case *uint8:
			*to = uint8(o.number(name, 8))
		case *guid.GUID:
			*to = o.guid(name)
		case *time.Time:
			*to = o.time(name)
		case *[]string:
			*to = []string{}
			for _, item := range o.list(name) {
				text, ok := item.(string)
				if o.err == nil && (!ok || text != printable(text)) {
					o.err = fmt.Errorf("%w: %s has something that is no printable text", ErrMalformed, name)
				}
				*to = append(*to, text)
			}
		default:
			o.messages(name, field)
		}
	}
}

// messages takes a list of messages.
func (o *object) messages(name string, field reflect.Value) {
	field.Set(reflect.MakeSlice(field.Type(), 0, 0))
	for _, item := range o.list(name) {
		fields, ok := item.(map[string]any)
		if !ok {
			o.err = fmt.Errorf("%w: %s has something that is no object", ErrMalformed, name)
			return
		}
		one := &object{fields: fields}
		v := reflect.New(field.Type().Elem()).Elem()
		one.fill(v)
		if o.err = one.end(); o.err != nil {
			return
		}
		field.Set(reflect.Append(field, v))
	}
}

// bounds reads "min-max".
func bounds(form string) (low, high int) {
	from, to, _ := strings.Cut(form, "-")
	low, errLow := strconv.Atoi(from)
	high, errHigh := strconv.Atoi(to)
	if errLow != nil || errHigh != nil {
		panic("wire: message without bounds: " + form) // found by any test of the message
	}
	return low, high
}

func (o *object) list(name string) []any {
	list, ok := o.take(name).([]any)
	if !ok && o.err == nil {
		o.err = fmt.Errorf("%w: %s is no list", ErrMalformed, name)
	}
	if o.err != nil {
		return nil
	}
	return list
}

func (o *object) formed(name, form string) string {
	s := o.text(name)
	if o.err != nil {
		return ""
	}
	if s != printable(s) {
		o.err = fmt.Errorf("%w: %s is not at most %d printable characters", ErrMalformed, name, maxText)
	} else if re := forms[form]; form != "" && !re.MatchString(s) {
		o.err = fmt.Errorf("%w: %s is not of its form, %v", ErrMalformed, name, re)
	}
	return s
}

func (o *object) guid(name string) guid.GUID {
	s := o.text(name)
	if o.err != nil {
		return guid.GUID{}
	}
	g, err := guid.Parse(s)
	if err != nil || g.String() != s || g.IsZero() {
		o.err = fmt.Errorf("%w: %s is no GUID in lower case", ErrMalformed, name)
	}
	return g
}

func (o *object) time(name string) time.Time {
	s := o.text(name)
	if o.err != nil {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UTC().Format(time.RFC3339) != s {
		o.err = fmt.Errorf("%w: %s is no time of RFC 3339 in whole seconds, UTC", ErrMalformed, name)
	}
	return t.UTC()
}

// Encode gives an administrator's message as JSON. Times lose what is less than a second, texts what is not printable.
func Encode[M any](m M) ([]byte, error) {
	v := reflect.New(reflect.TypeOf(m)).Elem()
	v.Set(reflect.ValueOf(m))
	plain(v)
	return json.Marshal(v.Interface())
}

// plain gives the fields the form in which they are written. Lists are made anew: the caller's stay as they are.
func plain(v reflect.Value) {
	for i := range v.NumField() {
		switch to := v.Field(i).Addr().Interface().(type) {
		case *[]byte:
			if *to == nil {
				*to = []byte{}
			}
		case *string:
			*to = printable(*to)
		case *time.Time:
			*to = to.UTC().Truncate(time.Second)
		case *[]string:
			list := make([]string, len(*to))
			for i, s := range *to {
				list[i] = printable(s)
			}
			*to = list
		case *int64, *uint8, *guid.GUID:
		default:
			field := v.Field(i)
			list := reflect.MakeSlice(field.Type(), field.Len(), field.Len())
			reflect.Copy(list, field)
			for i := range list.Len() {
				plain(list.Index(i))
			}
			field.Set(list)
		}
	}
}
