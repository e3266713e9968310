package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/ovmf"
)

// firmwarePaths is where distributions put OVMF for AMD SEV, from the root of a file system.
var firmwarePaths = []string{
	"usr/share/ovmf/OVMF.amdsev.fd",      // Debian, Ubuntu
	"usr/share/OVMF/OVMF.amdsev.fd",      // Debian, older
	"usr/share/edk2/ovmf/OVMF.amdsev.fd", // Fedora
}

// readFirmware reads the given firmware, or the first that a distribution installed, and looks
// whether GRUB can go into it before a disk is made in vain.
func readFirmware(path string, roots []string) ([]byte, error) {
	if path == "" {
		for _, root := range append(append([]string{}, roots...), "/") {
			for _, name := range firmwarePaths {
				if candidate := filepath.Join(root, name); path == "" {
					if _, err := os.Stat(candidate); err == nil {
						path = candidate
					}
				}
			}
		}
	}
	if path == "" {
		return nil, errors.New("no OVMF for AMD SEV (OVMF.amdsev.fd) is installed: install ovmf-amdsev (Debian), ovmf (Ubuntu) or edk2-ovmf (Fedora), or give --firmware FILE")
	}
	firmware, err := cli.ReadBounded(path, ovmf.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("read firmware: %w", err)
	}
	report, err := ovmf.Inspect(firmware)
	if err != nil {
		return nil, fmt.Errorf("firmware %s: %w: give an OVMF.amdsev.fd", path, err)
	}
	if len(report.Problems) > 0 {
		return nil, fmt.Errorf("firmware %s: %s", path, strings.Join(report.Problems, "; "))
	}
	return firmware, nil
}

const maxProgram = 64 << 20 // bytes; the agent has some 3 MiB

// readProgram reads one of the guest's programs; by default it stands beside this one.
func readProgram(name, flag, path string) ([]byte, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find %s: %w: give --%s FILE", name, err, flag)
		}
		path = filepath.Join(filepath.Dir(self), name)
	}
	content, err := cli.ReadBounded(path, maxProgram)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: install %s beside sealboot, or give --%s FILE", err, name, flag)
	}
	return content, err
}

// newPassphrase makes 256 random bits, as 64 hexadecimal digits: a person can copy them, and any tool takes them.
func newPassphrase(random io.Reader) ([]byte, error) {
	var key [32]byte
	if _, err := io.ReadFull(random, key[:]); err != nil {
		return nil, fmt.Errorf("make passphrase: %w", err)
	}
	defer clear(key[:])
	return hex.AppendEncode(nil, key[:]), nil
}

// rootFlags adds the flags for roots that are not ext4.
func rootFlags(cmd *cobra.Command, subvolume *string, bootSize *cli.ByteSize) {
	cmd.Flags().StringVar(subvolume, "root-subvolume", "", "path of a Btrfs root's subvolume with the system (default: the default one, or found by content)")
	cmd.Flags().Var(bootSize, "boot-size", "size of the boot volume that an XFS or Btrfs root gets, a multiple of 64M (default: twice what goes in, at least 1G)")
}
