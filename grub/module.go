package grub

import (
	"bytes"
	"context"
	"crypto/sha256"
	"embed"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealboot/sealboot/internal/tool"
)

//go:embed module/*.c module/*.h
var sources embed.FS

// ErrModules is wrapped where GRUB's modules are not what ours was written for.
var ErrModules = errors.New("these GRUB modules cannot be used")

// moduleSet is a folder that grub-mkimage can work from: kernel.img, the modules needed,
// ours, and moddep.lst.
type moduleSet struct {
	version, compiler string
	names             []string
	sum               string
}

// gatherModules fills dir with a moduleSet.
func gatherModules(ctx context.Context, tools Tools, dir string) (*moduleSet, error) {
	version, err := grubVersion(tools.ModuleDir)
	if err != nil {
		return nil, err
	}
	list, err := os.ReadFile(filepath.Join(tools.ModuleDir, "moddep.lst"))
	if err != nil {
		return nil, fmt.Errorf("read GRUB's modules: %w", err)
	}
	names, err := closure(string(list), wanted)
	if err != nil {
		return nil, err
	}
	for _, refused := range []string{"normal", "minicmd", "configfile"} {
		if slices.Contains(names, refused) {
			return nil, fmt.Errorf("%w: %s is among what they need", ErrModules, refused)
		}
	}
	modules := map[string][]byte{}
	for _, name := range names {
		if modules[name], err = os.ReadFile(filepath.Join(tools.ModuleDir, name+".mod")); err != nil {
			return nil, fmt.Errorf("read GRUB's modules: %w", err)
		}
	}
	kernel, err := os.ReadFile(filepath.Join(tools.ModuleDir, "kernel.img"))
	if err != nil {
		return nil, fmt.Errorf("read GRUB's modules: %w", err)
	}
	hasMod, err := fsHasMod(modules["ext2"])
	if err != nil {
		return nil, err
	}
	own, err := compile(ctx, tools.CC, dir, hasMod)
	if err != nil {
		return nil, err
	}
	if err := checkObject(own, kernel); err != nil {
		return nil, err
	}
	compiler, err := compilerVersion(ctx, tools.CC)
	if err != nil {
		return nil, err
	}

	// grub-mkimage puts a module behind what it needs, and so ours behind all.
	moddep := moduleName + ": " + strings.Join(names, " ") + "\n" + string(list)
	modules[moduleName] = own
	names = append(names, moduleName)
	sum := sha256.New()
	write := func(name string, data []byte) error {
		binary.Write(sum, binary.LittleEndian, uint64(len(data)))
		sum.Write(data)
		return os.WriteFile(filepath.Join(dir, name), data, 0o600)
	}
	err = errors.Join(write("kernel.img", kernel), os.WriteFile(filepath.Join(dir, "moddep.lst"), []byte(moddep), 0o600))
	for _, name := range names {
		err = errors.Join(err, write(name+".mod", modules[name]))
	}
	if err != nil {
		return nil, err
	}
	return &moduleSet{version: version, compiler: compiler, names: names, sum: hex.EncodeToString(sum.Sum(nil))}, nil
}

// closure gives the modules and all that they need by moddep.lst, each behind its own needs.
func closure(list string, modules []string) ([]string, error) {
	needs := map[string][]string{}
	for line := range strings.Lines(list) {
		if name, rest, ok := strings.Cut(line, ":"); ok {
			needs[name] = strings.Fields(rest)
		}
	}
	var order []string
	state := map[string]int{} // 1: begun, 2: in order
	var add func(name string) error
	add = func(name string) error {
		if state[name] == 2 {
			return nil
		}
		if _, known := needs[name]; !known || state[name] == 1 {
			return fmt.Errorf("%w: moddep.lst has no module %q, or one that needs itself", ErrModules, name)
		}
		state[name] = 1
		for _, need := range needs[name] {
			if err := add(need); err != nil {
				return err
			}
		}
		state[name] = 2
		order = append(order, name)
		return nil
	}
	for _, name := range modules {
		if err := add(name); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// ccFlags are what a GRUB module for x86_64 has to be compiled with (conf/Makefile.common
// and configure.ac of GRUB 2.12): no library, no vector registers, no red zone, because
// the firmware interrupts on our stack, and addresses anywhere in 64 bits.
var ccFlags = []string{
	"-std=gnu11", "-Os", "-Wall", "-Wextra", "-ffreestanding", "-nostdlib",
	"-m64", "-mcmodel=large", "-mno-red-zone", "-mno-mmx", "-mno-sse", "-msoft-float",
	"-fno-pic", "-fno-pie", "-fno-stack-protector", "-fno-stack-clash-protection", "-fcf-protection=none",
	"-fno-asynchronous-unwind-tables", "-fno-unwind-tables", "-fno-common", "-fno-strict-aliasing",
	"-fno-tree-loop-distribute-patterns", // no calls of memset or memcpy made up
	"-fno-ident", "-g0", "-frandom-seed=sealboot",
}

// compile gives the module as a relocatable object. Its sources are written into dir.
func compile(ctx context.Context, cc, dir string, hasMod bool) ([]byte, error) {
	err := fs.WalkDir(sources, "module", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := sources.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, d.Name()), data, 0o600)
	})
	if err != nil {
		return nil, err
	}
	define := "-DGRUB_FS_HAS_MOD=0"
	if hasMod {
		define = "-DGRUB_FS_HAS_MOD=1"
	}
	args := append(slices.Clone(ccFlags), define, "-c", moduleName+".c", "-o", moduleName+".o")
	// Names are relative to dir, so that its own name is not in the object; LC_ALL for the
	// messages, the rest so that no variable of the caller's adds to what is compiled.
	env := []string{"LC_ALL=C", "CPATH=", "C_INCLUDE_PATH=", "SOURCE_DATE_EPOCH=0"}
	if err := tool.Run(ctx, tool.Command{Path: cc, Args: args, Dir: dir, Env: env}); err != nil {
		return nil, fmt.Errorf("compile GRUB module: %w", err)
	}
	return os.ReadFile(filepath.Join(dir, moduleName+".o"))
}

func compilerVersion(ctx context.Context, cc string) (string, error) {
	var out bytes.Buffer
	if err := tool.Run(ctx, tool.Command{Path: cc, Args: []string{"--version"}, Env: []string{"LC_ALL=C"}, Stdout: &out}); err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(out.String(), "\n")
	return strings.TrimSpace(line), nil
}
