// Package grub builds the EFI application that unlocks the disk: GRUB with a module of
// ours, efisecret, and its settings.
//
// The module (module/, GPL-3.0-or-later as GRUB is) takes the disk's passphrase out of the
// secret area of the firmware, unlocks the LUKS2 disk with GRUB's cryptomount, starts the
// newest kernel in the encrypted /boot that has an initramfs in /boot/sealboot, and hands
// passphrase and header pin to that initramfs as /sealboot/key/passphrase and
// /sealboot/key/header-pin. On the first failure it prints one line, "sealboot: stopped: ",
// and turns the machine off. It runs as it is initialised and never returns: GRUB's
// configuration parser, menu, editor, shell and rescue prompt are never reached, and normal
// mode is not even part of the image.
//
// GRUB is the distribution's own, version 2.12 or newer, unpatched; the module is compiled
// with gcc each time against declarations of its own (module/grub.h), so neither GRUB's
// sources nor its headers are needed. The same Config, GRUB and compiler give the same bytes.
package grub

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sealboot/sealboot/internal/tool"
)

// Info says what went into an EFI application.
type Info struct {
	GRUBVersion     string   `json:"grub_version"`     // the package's, as in 2.12-9
	CompilerVersion string   `json:"compiler_version"` // first line of gcc --version
	Modules         []string `json:"modules"`          // in the order in which GRUB initialises them
	ModulesSHA256   string   `json:"modules_sha256"`   // of GRUB's kernel and all modules, ours included
	ConfigSHA256    string   `json:"config_sha256"`
	SHA256          string   `json:"sha256"` // of the EFI application
	Size            int      `json:"size"`
}

// moduleName is our module, which comes last: see module/efisecret.c.
const moduleName = "efisecret"

// wanted are the modules that efisecret uses; moddep.lst adds what they need.
var wanted = []string{
	"memdisk", "tar", // the settings
	"part_gpt", "cryptodisk", "luks2", "pbkdf2", "gcry_rijndael", "gcry_sha256", "gcry_sha512", // the disk
	"ext2", "linux", "boot", // the kernel
}

// Build makes the EFI application.
func Build(ctx context.Context, config Config, tools Tools) ([]byte, *Info, error) {
	text, err := config.Text()
	if err != nil {
		return nil, nil, fmt.Errorf("GRUB configuration: %w", err)
	}
	disk, err := memdisk(text)
	if err != nil {
		return nil, nil, err
	}
	dir, err := os.MkdirTemp("", "sealboot-grub-")
	if err != nil {
		return nil, nil, err
	}
	defer os.RemoveAll(dir)
	set, err := gatherModules(ctx, tools, dir)
	if err != nil {
		return nil, nil, err
	}
	diskPath, output := filepath.Join(dir, "memdisk.tar"), filepath.Join(dir, "grub.efi")
	if err := os.WriteFile(diskPath, disk, 0o600); err != nil {
		return nil, nil, err
	}
	err = tool.Run(ctx, tool.Command{Path: tools.Mkimage, Args: []string{
		"-O", "x86_64-efi", "-d", dir, "-o", output, "-m", diskPath,
		// GRUB would look here for modules and configuration, and finds nothing.
		"-p", "(memdisk)/none", moduleName,
	}})
	if err != nil {
		return nil, nil, fmt.Errorf("pack GRUB: %w", err)
	}
	efi, err := os.ReadFile(output)
	if err != nil {
		return nil, nil, fmt.Errorf("pack GRUB: %w", err)
	}
	modules, err := checkEmbedded(efi, set.names, disk)
	if err != nil {
		return nil, nil, err
	}
	configSum, sum := sha256.Sum256([]byte(text)), sha256.Sum256(efi)
	return efi, &Info{
		GRUBVersion:     set.version,
		CompilerVersion: set.compiler,
		Modules:         modules,
		ModulesSHA256:   set.sum,
		ConfigSHA256:    hex.EncodeToString(configSum[:]),
		SHA256:          hex.EncodeToString(sum[:]),
		Size:            len(efi),
	}, nil
}
