package grub

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// Config is what the owner decides about the start of a machine. It becomes part of the
// EFI application, and so of the launch digest. It holds no secret.
type Config struct {
	// DiskUUID is the LUKS UUID of the disk to unlock, in lower case. Empty takes the
	// only LUKS2 disk of the machine, whichever it is: the same digest then serves many disks.
	DiskUUID string
	// Append is put at the end of the kernel's command line. The kernel's console belongs
	// here (console=ttyS0).
	Append string
	// Serial makes GRUB write to the first serial port by itself, for firmware whose
	// console does not reach that port. OVMF's does: every line would come out twice.
	Serial bool
}

// ConfigError is a setting that cannot be used.
type ConfigError struct {
	Setting string // "disk UUID", "append"
	Problem string
}

func (e *ConfigError) Error() string { return fmt.Sprintf("%s: %s", e.Setting, e.Problem) }

// maxAppend is APPEND_MAX of module/settings.h: Linux on x86 takes 2047 bytes in all
// (COMMAND_LINE_SIZE), and what GRUB puts before this is well below 400.
const maxAppend = 1536

var uuidForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`)
})

// ours are the words of the kernel's command line that the module writes, and those that
// would take the initramfs away from it.
var ours = []string{"root=", "rdinit=", "initrd=", "noinitrd", "sealboot.", "BOOT_IMAGE="}

// Validate says whether the configuration can be used; each complaint is a *ConfigError.
func (c Config) Validate() error {
	var problems []error
	complain := func(setting, format string, args ...any) {
		problems = append(problems, &ConfigError{Setting: setting, Problem: fmt.Sprintf(format, args...)})
	}
	if c.DiskUUID != "" && !uuidForm().MatchString(c.DiskUUID) {
		complain("disk UUID", "%q is no UUID in lower case", c.DiskUUID)
	}
	if len(c.Append) > maxAppend {
		complain("append", "%d bytes, and at most %d fit the kernel's command line", len(c.Append), maxAppend)
	}
	for i := range len(c.Append) {
		// GRUB's linux command puts a backslash before quotes and backslashes, so that
		// the kernel would see something else than what was written here.
		if b := c.Append[i]; b < 0x20 || b > 0x7e || strings.IndexByte(`'"\`, b) >= 0 {
			complain("append", "byte %d is %q: only printable ASCII without quotes and backslashes", i, b)
			break
		}
	}
	for _, word := range strings.Fields(c.Append) {
		for _, start := range ours {
			if word == start || (strings.HasSuffix(start, "=") || strings.HasSuffix(start, ".")) && strings.HasPrefix(word, start) {
				complain("append", "%s… is sealboot's own to set", start)
			}
		}
	}
	return errors.Join(problems...)
}

// Text gives grub.cfg as it stands in the memdisk. Its lines are assignments in GRUB's own
// syntax, but only the module reads them: see module/settings.c.
func (c Config) Text() (string, error) {
	if err := c.Validate(); err != nil {
		return "", err
	}
	serial := "0"
	if c.Serial {
		serial = "1"
	}
	var text strings.Builder
	text.WriteString("# Settings of GRUB's module efisecret, which alone reads this file.\n")
	for _, setting := range [][2]string{
		{"version", "1"},
		{"disk_uuid", c.DiskUUID},
		{"append", strings.Join(strings.Fields(c.Append), " ")},
		{"serial", serial},
	} {
		value, err := quote(setting[1])
		if err != nil {
			return "", fmt.Errorf("%s: %w", setting[0], err)
		}
		fmt.Fprintf(&text, "%s=%s\n", setting[0], value)
	}
	return text.String(), nil
}

// quote puts a value into single quotes, within which GRUB takes every character as itself.
func quote(value string) (string, error) {
	for i := range len(value) {
		if b := value[i]; b < 0x20 || b > 0x7e || b == '\'' {
			return "", fmt.Errorf("byte %d is %q, which cannot be quoted", i, b)
		}
	}
	return "'" + value + "'", nil
}
