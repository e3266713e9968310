package initramfs

import (
	"bytes"
	"debug/elf"
	"fmt"
)

// checkAgent refuses what the kernel could not start: the initramfs has no loader and no libraries.
func checkAgent(program []byte) error {
	f, err := elf.NewFile(bytes.NewReader(program))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrAgent, err)
	}
	defer f.Close()
	if f.Type != elf.ET_EXEC && f.Type != elf.ET_DYN || f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("%w: it is %v for %v", ErrAgent, f.Type, f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%w: it needs a dynamic loader: build it with CGO_ENABLED=0", ErrAgent)
		}
	}
	return nil
}
