package agent

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// LoadModules loads what a list names, in its order: lines "need FILE" or "try FILE", as package
// initramfs writes them. A module of the first kind must load; of the second kind it need not.
func LoadModules(list string, load func(file string) error) error {
	for line := range strings.Lines(list) {
		verb, file, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if !ok || verb != "need" && verb != "try" || file == "" || file != path.Base(file) {
			return fmt.Errorf("%w: %s has the line %q", ErrModules, ModuleList, line)
		}
		err := load(path.Join(ModuleFolder, file))
		if err != nil && !errors.Is(err, unix.EEXIST) && verb == "need" {
			return fmt.Errorf("%w: %s: %w", ErrModules, file, err)
		}
	}
	return nil
}

// loadModule gives a module's file to the kernel (finit_module(2)).
func loadModule(file string) error {
	fd, err := unix.Open(file, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.FinitModule(fd, "", 0)
}
