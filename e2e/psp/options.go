package psp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// option is one option of QEMU's command line, as given.
type option struct {
	name  string // without dashes; "" for a bare argument (a disk image)
	value string
	has   bool // whether there is a value
}

// flags are QEMU's options that take no argument (qemu-options.hx).
var flags = []string{
	"h", "help", "version", "S", "snapshot", "no-fd-bootchk", "nographic", "portrait", "alt-grab", "ctrl-grab",
	"full-screen", "no-quit", "curses", "sdl", "usb", "win2k-hack", "no-acpi", "no-hpet", "enable-kvm", "no-kvm",
	"no-reboot", "no-shutdown", "daemonize", "nodefaults", "no-user-config", "only-migratable", "xen-attach",
	"mem-prealloc", "semihosting", "old-param", "singlestep", "one-insn-per-tb", "preconfig", "enable-fips",
	"enable-sync-profile",
}

// splitOptions reads a command line as QEMU does.
func splitOptions(args []string) ([]option, error) {
	var out []option
	for i := 0; i < len(args); i++ {
		name, dashed := strings.CutPrefix(args[i], "-")
		if !dashed || name == "" {
			out = append(out, option{value: args[i], has: true})
			continue
		}
		name = strings.TrimPrefix(name, "-")
		o := option{name: name}
		if !slices.Contains(flags, name) {
			if i++; i == len(args) {
				return nil, fmt.Errorf("-%s: requires an argument", name)
			}
			o.value, o.has = args[i], true
		}
		out = append(out, o)
	}
	return out, nil
}

// joinOptions is the inverse of splitOptions.
func joinOptions(options []option) []string {
	var out []string
	for _, o := range options {
		if o.name != "" {
			out = append(out, "-"+o.name)
		}
		if o.has {
			out = append(out, o.value)
		}
	}
	return out
}

// property is one of an option's key=value parts.
type property struct{ key, value string }

// properties are an option's parts in their order. A later value of a key replaces an earlier one.
type properties []property

// parseProperties reads "first,key=value,flag"; a first part without "=" is the value of the key
// called implied. A comma within a value is written twice. The JSON form is an object of plain values.
func parseProperties(text, implied string) (properties, error) {
	if strings.HasPrefix(text, "{") {
		return parseJSONProperties(text)
	}
	return parseParts(splitCommas(text), implied)
}

func parseParts(parts []string, implied string) (properties, error) {
	var out properties
	for i, part := range parts {
		key, value, assigned := strings.Cut(part, "=")
		switch {
		case assigned:
		case i == 0 && implied != "":
			key, value = implied, part
		case strings.HasPrefix(key, "no") && key != "nodelay": // "nowait" of old
			key, value = key[2:], "off"
		default:
			value = "on"
		}
		if key == "" {
			return nil, fmt.Errorf("parameter without a name: %q", part)
		}
		out = append(out, property{key, value})
	}
	return out, nil
}

func splitCommas(text string) []string {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] != ',':
			part.WriteByte(text[i])
		case i+1 < len(text) && text[i+1] == ',':
			part.WriteByte(',')
			i++
		default:
			parts = append(parts, part.String())
			part.Reset()
		}
	}
	if part.Len() > 0 {
		parts = append(parts, part.String())
	}
	return parts
}

func parseJSONProperties(text string) (properties, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return nil, fmt.Errorf("JSON parameter %q: %w", text, err)
	}
	var out properties
	for key, raw := range members {
		value := string(raw)
		switch {
		case value == "true":
			value = "on"
		case value == "false":
			value = "off"
		case value[0] == '"':
			if err := json.Unmarshal(raw, &value); err != nil {
				return nil, err
			}
		}
		out = append(out, property{key, value})
	}
	slices.SortFunc(out, func(a, b property) int { return strings.Compare(a.key, b.key) })
	return out, nil
}

// get gives a key's last value.
func (p properties) get(key string) (string, bool) {
	for i := len(p) - 1; i >= 0; i-- {
		if p[i].key == key {
			return p[i].value, true
		}
	}
	return "", false
}

// on reads a switch that is off unless given.
func (p properties) on(key string) bool {
	value, _ := p.get(key)
	return value == "on" || value == "yes" || value == "true" || value == "y"
}

// without gives the properties but the named ones.
func (p properties) without(keys ...string) properties {
	return slices.DeleteFunc(slices.Clone(p), func(q property) bool { return slices.Contains(keys, q.key) })
}

func (p properties) String() string {
	parts := make([]string, len(p))
	for i, q := range p {
		parts[i] = q.key + "=" + strings.ReplaceAll(q.value, ",", ",,")
	}
	return strings.Join(parts, ",")
}
