package ovmf

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
)

// grubModule is the module of ours that takes the secret (grub/module/efisecret.c). GRUB starts modules
// in their order, and this one does not return: it has to be the last.
const grubModule = "efisecret"

// promptModules let somebody at the console type, or run a configuration that can.
var promptModules = []string{
	"normal", "minicmd", "configfile", "legacycfg", "gfxmenu", "menuentry", "sh", "shell", "rescue", "password", "password_pbkdf2",
	"terminal", "usb_keyboard", "at_keyboard", "serial", "read", "sleep", "keystatus", "chain", "efifwsetup", "linux16", "multiboot",
	"multiboot2", "memrw", "iorw", "setpci", "net", "efinet", "tftp", "http", "lua", "test", "echo", "regexp", "eval",
}

// unlockModules are what the module needs, of GRUB 2.12 to 2.14.
var unlockModules = []string{
	grubModule, "video", "mmap", "relocator", "boot", "linux", "fshelp", "ext2", "crypto", "gcry_sha512", "gcry_sha256",
	"gcry_rijndael", "pbkdf2", "json", "archelp", "procfs", "extcmd", "cryptodisk", "afsplitter", "luks2", "part_gpt", "tar",
	"memdisk", "bufio", "disk", "datetime", "bitmap", "bitmap_scale", "argon2",
}

// promptWords are words of the kernel's command line that give a prompt where a boot fails or at once.
var promptWords = []string{"single", "emergency", "rescue", "s", "1", "init=/bin/sh", "init=/bin/bash", "break", "rd.break", "rd.shell", "rd.shell=1"}

// lintGRUB looks into the GRUB in the firmware.
func (r *LintReport) lintGRUB(t *Tree) {
	_, file := t.grub()
	if file == nil {
		r.add("grub", Unfit, "no place for GRUB")
		return
	}
	application, err := file.application()
	if err != nil {
		r.addError("grub", err)
		return
	}
	if len(application) == 0 {
		r.add("grub", Unfit, "GRUB's place is empty")
		return
	}
	sum := sha256.Sum256(application)
	r.GRUB = &GRUBLint{SHA256: hex.EncodeToString(sum[:]), Size: len(application), Modules: []string{}}
	if err := checkEFIApplication(application); err != nil {
		r.addError("grub", err)
		return
	}
	g, err := parseGRUB(application)
	if err != nil {
		r.addError("grub", err)
		return
	}
	r.GRUB.Modules = append(r.GRUB.Modules, g.modules...)
	r.lintModules(g)
	if g.config != nil {
		r.add("grub-config", Unfit, "a configuration of %d bytes is embedded", len(g.config))
	}
	for _, kind := range g.others[:min(len(g.others), 4)] {
		r.add("grub-config", Warning, "an object of unknown type %d", kind)
	}
	if !slices.Contains(g.modules, grubModule) {
		return // whatever is in its memdisk is not for us
	}
	if g.memdisk == nil {
		r.addError("grub-settings", errors.New("no memdisk"))
		return
	}
	if r.GRUB.Settings, err = grubSettings(g.memdisk); err != nil {
		r.addError("grub-settings", err)
		return
	}
	if r.GRUB.Settings.DiskUUID == "" {
		r.add("grub-disk", Note, "any LUKS disk is taken")
	}
	for _, word := range strings.Fields(r.GRUB.Settings.Append) {
		if slices.Contains(promptWords, word) || strings.HasPrefix(word, "break=") || strings.HasPrefix(word, "rd.break=") {
			r.add("grub-append", Unfit, "the kernel's command line holds %q", word)
		}
	}
}

func (r *LintReport) lintModules(g *grubImage) {
	switch i := slices.Index(g.modules, grubModule); {
	case i < 0:
		r.add("grub-ours", Unfit, "no module %s among its %d modules", grubModule, len(g.modules))
	case i != len(g.modules)-1:
		r.add("grub-ours", Unfit, "%s is module %d of %d, not the last", grubModule, i+1, len(g.modules))
	}
	var prompts, others []string
	for _, m := range g.modules {
		switch {
		case slices.Contains(promptModules, m):
			prompts = append(prompts, m)
		case !slices.Contains(unlockModules, m):
			others = append(others, m)
		}
	}
	if len(prompts) > 0 {
		r.add("grub-prompt", Unfit, "modules that lead to a prompt or another boot: %s", strings.Join(prompts, " "))
	}
	if len(others) > 0 {
		r.add("grub-modules", Warning, "modules that unlocking does not need: %s", strings.Join(others, " "))
	}
}
