package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealboot/sealboot/agent/receipt"
)

// initramfsKind is a maker of initramfs files whose rescue shell we know how to turn off. That shell would be the
// host's: it opens on the console when something fails, and the host can make something fail.
type initramfsKind struct {
	mark    string // a file that each of its initramfs has
	file    string // what we add
	content string
}

var initramfsKinds = []initramfsKind{
	// Debian, Ubuntu: initramfs-tools(7); its init reads conf/conf.d, and panic= there as on the command line
	// makes it reboot, which ends the machine. Nor does it look, or wait, for an image of memory to resume from.
	{"/conf/initramfs.conf", "/conf/conf.d/sealboot", "panic=1\nnoresume=y\n"},
	// Fedora, SUSE: dracut.cmdline(7), which /etc/cmdline.d adds to.
	{"/lib/dracut-lib.sh", "/etc/cmdline.d/99-sealboot.conf", "rd.shell=0 rd.emergency=poweroff noresume\n"},
}

// distributionInit gives the program of the distribution's initramfs that was unpacked at root, with its
// rescue shell turned off; "" if there is none, or none of a kind that is known.
func distributionInit(root string) (string, error) {
	const program = "/init" // the name that the kernel looks for, Linux init/main.c
	if _, err := os.Stat(filepath.Join(root, program)); err != nil {
		return "", nil
	}
	known := ""
	for _, kind := range initramfsKinds {
		if _, err := os.Stat(filepath.Join(root, kind.mark)); err != nil {
			continue
		}
		known = program
		file := filepath.Join(root, kind.file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return "", err
		}
		if err := os.WriteFile(file, []byte(kind.content), 0o644); err != nil {
			return "", err
		}
	}
	if known == "" {
		return "", nil
	}
	return known, keepRun(root)
}

// keepRun has initramfs-tools write again what we have in /run, a record and a rule for udev, and a receipt: its init puts a new /run
// over ours before udev starts. /scripts/init-top/ORDER is the shell text that starts udev; like all of an initramfs it is
// read by root alone, and removed with it. dracut keeps a /run that it finds.
func keepRun(root string) error {
	order := filepath.Join(root, "scripts/init-top/ORDER")
	old, err := os.ReadFile(order)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	var text strings.Builder
	for _, folder := range []string{udevRecords, udevRules} {
		files, err := os.ReadDir(filepath.Join(root, folder))
		if err != nil {
			return err
		}
		fmt.Fprintf(&text, "mkdir -p %s\n", folder)
		for _, f := range files {
			content, err := os.ReadFile(filepath.Join(root, folder, f.Name()))
			if err != nil {
				return err
			}
			fmt.Fprintf(&text, "cat >%s/%s <<'END'\n%sEND\n", folder, f.Name(), content)
		}
	}
	note, err := os.ReadFile(filepath.Join(root, receipt.Path))
	if err == nil {
		fmt.Fprintf(&text, "( umask 077; mkdir %s; cat >%s ) <<'END'\n%sEND\n", filepath.Dir(receipt.Path), receipt.Path, note)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(order, append([]byte(text.String()), old...), 0o644)
}
