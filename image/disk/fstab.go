package disk

import (
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// mountTable is what an /etc/fstab mounts where (fstab(5)).
type mountTable struct {
	at map[string]listed // by folder; of several the last counts, which hides the others
}

type listed struct{ device, subvolume string }

func parseFstab(data []byte) *mountTable {
	t := &mountTable{at: map[string]listed{}}
	for line := range strings.Lines(string(data)) {
		fields := strings.Fields(line)
		if len(fields) < 2 || fields[0][0] == '#' {
			continue
		}
		one := listed{device: unescape(fields[0])}
		if len(fields) > 3 {
			for option := range strings.SplitSeq(fields[3], ",") {
				if name, ok := strings.CutPrefix(option, "subvol="); ok {
					one.subvolume = path.Clean("/" + unescape(name))
				}
			}
		}
		t.at[path.Clean(unescape(fields[1]))] = one
	}
	return t
}

// DropMounts turns the lines of an /etc/fstab that mount something at one of the paths into comments.
func DropMounts(table []byte, paths []string) []byte {
	var out []byte
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0][0] != '#' && slices.Contains(paths, path.Clean(unescape(fields[1]))) {
			out = append(out, "# now in the root: "...)
		}
		out = append(out, line...)
	}
	return out
}

// unescape decodes \040 and the like.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// devicePart matches names that Linux gives a disk's partitions.
var devicePart = regexp.MustCompile(`^/dev/(?:(?:sd|vd|hd|xvd)[a-z]+|(?:nvme\d+n|mmcblk|loop)\d+p)(\d+)$`)

// Named says whether a name for a device, as /etc/fstab and /etc/crypttab have them, is this volume's.
func (v Volume) Named(spec string) bool {
	if kind, ok := strings.CutPrefix(spec, "/dev/disk/by-"); ok { // udev's links
		if tag, value, ok := strings.Cut(kind, "/"); ok {
			spec = strings.ToUpper(tag) + "=" + value
		}
	}
	if m := devicePart.FindStringSubmatch(spec); m != nil {
		number, err := strconv.Atoi(m[1])
		return err == nil && number != 0 && number == v.Number
	}
	tag, value, ok := strings.Cut(spec, "=")
	value = strings.Trim(value, `"'`)
	if !ok || value == "" {
		return false
	}
	switch tag {
	case "UUID":
		return strings.EqualFold(value, v.UUID)
	case "LABEL":
		return value == v.Label
	case "PARTUUID":
		return strings.EqualFold(value, v.ID)
	case "PARTLABEL":
		return value == v.Name
	}
	return false
}
