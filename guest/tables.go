package guest

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sealboot/sealboot/image/disk"
)

// rewriter changes /etc/fstab and /etc/crypttab (fstab(5), crypttab(5)). Lines that need no change stay byte for byte;
// one that names what is no more becomes a comment.
type rewriter struct {
	system *disk.System // nil: a tree of files
	gone   []string     // names of mappings that crypttab has no more
	notes  []string
}

const (
	notHere = "# sealboot: not on the encrypted disk: "
	inRoot  = "# sealboot: now in the root: "
	onBoot  = "# sealboot: now on the boot volume: "

	bootLine = bootDevice + " /boot ext4 defaults 0 2\n"
)

// each rewrites the lines of a table that are no comments and have at least so many fields.
func each(table []byte, least int, change func(line string, fields []string) (string, error)) ([]byte, error) {
	var out strings.Builder
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) >= least && fields[0][0] != '#' {
			var err error
			if line, err = change(line, fields); err != nil {
				return nil, err
			}
		}
		out.WriteString(line)
	}
	return []byte(out.String()), nil
}

// crypttab comments out mappings of partitions that are not on the new disk: systemd would wait for them at each boot.
func (t *rewriter) crypttab(table, fstab []byte) []byte {
	oldRoot := ""
	each(fstab, 2, func(line string, f []string) (string, error) {
		if path.Clean(unescape(f[1])) == "/" {
			oldRoot = unescape(f[0])
		}
		return line, nil
	})
	out, _ := each(table, 2, func(line string, f []string) (string, error) {
		device := unescape(f[1])
		switch {
		case t.system == nil && "/dev/mapper/"+f[0] == oldRoot:
		case t.system != nil && slices.ContainsFunc(t.system.Others, func(v disk.Volume) bool { return v.Named(device) }):
		default:
			return line, nil
		}
		t.gone = append(t.gone, "/dev/mapper/"+f[0])
		return notHere + line, nil
	})
	return out
}

// fstab gives the root its new device, and comments out swap and boot partitions that are not on the new disk. Another
// partition of the source's disk gives ErrMounted: its files would be missing.
func (t *rewriter) fstab(table []byte) ([]byte, error) {
	hasRoot := false
	out, err := each(table, 2, func(line string, f []string) (string, error) {
		m := mount{device: unescape(f[0]), at: path.Clean(unescape(f[1])), kind: "auto", options: "defaults", rest: "0 0"}
		if len(f) > 2 {
			m.kind = f[2]
		}
		if len(f) > 3 {
			m.options = f[3]
		}
		if len(f) > 4 {
			m.rest = strings.Join(f[4:], " ")
		}
		if m.at == "/" && m.kind != "swap" {
			line = t.root(line, m)
			if boot := t.boot(); boot != "" && !hasRoot {
				line = strings.TrimSuffix(line, "\n") + "\n" + boot
			}
			hasRoot = true
			return line, nil
		}
		return t.other(line, m)
	})
	if err != nil || hasRoot {
		return out, err
	}
	// Without an entry systemd leaves the root as the kernel mounted it: read-only.
	if n := len(out); n > 0 && out[n-1] != '\n' {
		out = append(out, '\n')
	}
	if t.boot() != "" {
		return fmt.Appendf(out, "%s / %s defaults 0 0\n%s", rootDevice, t.system.Root.FileSystem, t.boot()), nil
	}
	return append(out, rootDevice+" / ext4 errors=remount-ro 0 1\n"...), nil
}

// boot is the boot volume's line, where there is one.
func (t *rewriter) boot() string {
	if t.system == nil || !t.system.BootVolume() {
		return ""
	}
	return bootLine
}

type mount struct{ device, at, kind, options, rest string }

func (m mount) has(option string) bool {
	return slices.Contains(strings.Split(m.options, ","), option)
}

// root rewrites the root's line. A file system that is taken as it is keeps its identifiers, so that what names it by them
// stays right: it is mounted long before. One that is made for a tree of files is ext4.
func (t *rewriter) root(line string, m mount) string {
	if t.system != nil {
		v := t.system.Root
		v.ID, v.Name, v.Number = "", "", 0 // the partition is another one
		if v.Named(m.device) {
			return line
		}
	} else if !(disk.Kind(m.kind)).Ext() {
		m.kind, m.options = "ext4", "errors=remount-ro"
	}
	return fmt.Sprintf("%s / %s %s %s\n", rootDevice, m.kind, m.options, m.rest)
}

func (t *rewriter) other(line string, m mount) (string, error) {
	if slices.Contains(t.gone, m.device) {
		return t.drop(line, m, disk.Volume{})
	}
	if m.device == bootDevice { // of an earlier disk; this one's line follows the root's
		if t.boot() == "" {
			return notHere + line, nil
		}
		return "", nil
	}
	if t.system == nil {
		switch {
		case !partition.MatchString(m.device):
		case m.kind == "swap" || slices.Contains([]string{"/boot", "/boot/efi", "/efi"}, m.at):
			return notHere + line, nil
		case !m.has("noauto") && !m.has("nofail"):
			t.notes = append(t.notes, fmt.Sprintf("/etc/fstab mounts %s at %s: the guest waits for that disk at each boot, unless it is attached", m.device, m.at))
		}
		return line, nil
	}
	for _, v := range t.system.Mounts {
		if !v.Named(m.device) || v.Subvolume != "" && v.Path != m.at {
			continue
		}
		if t.boot() != "" && strings.HasPrefix(v.Path+"/", "/boot/") {
			return onBoot + line, nil
		}
		return inRoot + line, nil
	}
	if t.system.Root.Named(m.device) { // another subvolume; a host's disk may have the same label
		return fmt.Sprintf("%s %s %s %s %s\n", rootDevice, strings.Fields(line)[1], m.kind, m.options, m.rest), nil
	}
	for _, v := range t.system.Others {
		if v.Named(m.device) {
			return t.drop(line, m, v)
		}
	}
	return line, nil
}

// drop comments out what nobody misses.
func (t *rewriter) drop(line string, m mount, v disk.Volume) (string, error) {
	if m.kind == "swap" || v.FileSystem == disk.Swap || m.has("noauto") {
		return notHere + line, nil
	}
	what := m.device
	if v.Number != 0 {
		what = v.String()
	}
	return "", fmt.Errorf("%w: /etc/fstab mounts %s at %s: move its files into the root and take the line out", ErrMounted, what, m.at)
}

// partition matches names of partitions, and of file systems on them, that udev gives.
var partition = regexp.MustCompile(`^((UUID|LABEL|PARTUUID|PARTLABEL)=|/dev/(disk/by-|(sd|vd|hd|xvd)[a-z]+\d|(nvme\d+n|mmcblk)\d+p\d))`)

// unescape decodes \040 and the like.
func unescape(s string) string {
	return escaped.ReplaceAllStringFunc(s, func(code string) string {
		n, _ := strconv.ParseUint(code[1:], 8, 8)
		return string([]byte{byte(n)})
	})
}

var escaped = regexp.MustCompile(`\\[0-3][0-7]{2}`)
