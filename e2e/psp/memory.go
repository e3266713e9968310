package psp

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/internal/qmp"
	"github.com/sealboot/sealboot/ovmf"
)

// guestMemory is the guest's RAM, shared with the real QEMU, and where its addresses lie in it.
type guestMemory struct {
	ram       *os.File
	saved     *os.File // where QEMU puts memory that is not RAM
	savedPath string   // its name for QEMU
	layout    []region
}

// region is a range of guest-physical addresses.
type region struct {
	start, end uint64 // the end is the last address
	kind       string // "ram", "rom", "romd", "i/o", …
	offset     uint64 // in the memory behind it
	ours       bool   // the guest's RAM
}

func newGuestMemory(size int64) (*guestMemory, error) {
	ram, err := memoryFile("guest-ram", size)
	if err != nil {
		return nil, err
	}
	saved, err := memoryFile("guest-saved", 0)
	if err != nil {
		ram.Close()
		return nil, err
	}
	return &guestMemory{ram: ram, saved: saved}, nil
}

func (g *guestMemory) close() {
	g.ram.Close()
	g.saved.Close()
}

// memoryFile makes a file that has no name and ends with its last user.
func memoryFile(name string, size int64) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make guest memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := f.Truncate(size); err != nil {
		f.Close()
		return nil, fmt.Errorf("make guest memory: %w", err)
	}
	return f, nil
}

func duplicate(f *os.File) (*os.File, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("share guest memory: %w", err)
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}

// monitorText runs a command of QEMU's monitor for people.
func monitorText(ctx context.Context, c *qmp.Client, command string) (string, error) {
	var text string
	err := c.Execute(ctx, "human-monitor-command", map[string]string{"command-line": command}, &text)
	return text, err
}

// locate asks QEMU where the guest's addresses lie.
func (g *guestMemory) locate(ctx context.Context, c *qmp.Client, backend string) error {
	text, err := monitorText(ctx, c, "info mtree -f")
	if err != nil {
		return err
	}
	g.layout, err = parseLayout(text, backend)
	return err
}

// parseLayout reads the view of the root region "system" from `info mtree -f`. RAM bears the
// name of its memory object; "pc.ram" is what older machine types call it.
func parseLayout(text, backend string) ([]region, error) {
	var view []region
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "FlatView") {
			if len(view) > 0 {
				break
			}
			continue
		}
		if root, ok := strings.CutPrefix(line, "Root memory region:"); ok {
			view = nil
			if strings.TrimSpace(root) == "system" {
				view = make([]region, 0, 64)
			}
			continue
		}
		if view == nil {
			continue
		}
		if r, ok := parseRegion(line, backend); ok {
			view = append(view, r)
		}
	}
	if len(view) == 0 {
		return nil, fmt.Errorf("QEMU's memory layout is not understood")
	}
	return view, nil
}

// parseRegion reads "0000000000100000-000000000fffffff (prio 0, ram): NAME @0000000000100000".
func parseRegion(line, backend string) (region, bool) {
	addresses, rest, ok := strings.Cut(line, " (prio ")
	if !ok {
		return region{}, false
	}
	attributes, name, ok := strings.Cut(rest, "): ")
	_, kind, ok2 := strings.Cut(attributes, ", ")
	start, end, ok3 := strings.Cut(addresses, "-")
	if !ok || !ok2 || !ok3 {
		return region{}, false
	}
	r := region{kind: kind}
	var err error
	if r.start, err = strconv.ParseUint(start, 16, 64); err != nil {
		return region{}, false
	}
	if r.end, err = strconv.ParseUint(end, 16, 64); err != nil || r.end < r.start {
		return region{}, false
	}
	name, offset, _ := strings.Cut(name, " @")
	if offset, _, _ = strings.Cut(offset, " "); offset != "" {
		if r.offset, err = strconv.ParseUint(offset, 16, 64); err != nil {
			return region{}, false
		}
	}
	name, _, _ = strings.Cut(name, " ")
	r.ours = kind == "ram" && (name == backend || name == "/objects/"+backend || name == "pc.ram")
	return r, true
}

// translate gives the place in RAM of size bytes at a guest-physical address, with the words of
// QEMU's gpa2hva for what is not RAM.
func (g *guestMemory) translate(address uint64, size int) (int64, error) {
	for _, r := range g.layout {
		if address < r.start || address > r.end {
			continue
		}
		if !r.ours {
			return 0, fmt.Errorf("Memory at address 0x%xis not RAM", address)
		}
		if uint64(size)-1 > r.end-address {
			return 0, fmt.Errorf("Size of memory region at 0x%x exceeded.", address)
		}
		return int64(r.offset + (address - r.start)), nil
	}
	return 0, fmt.Errorf("No memory is mapped at address 0x%x", address)
}

// write puts data into the guest's RAM.
func (g *guestMemory) write(address uint64, data []byte) error {
	offset, err := g.translate(address, len(data))
	if err != nil {
		return err
	}
	_, err = g.ram.WriteAt(data, offset)
	return err
}

// read reads from the guest's RAM.
func (g *guestMemory) read(address uint64, data []byte) error {
	offset, err := g.translate(address, len(data))
	if err != nil {
		return err
	}
	_, err = g.ram.ReadAt(data, offset)
	return err
}

// firmware gives the memory that ends at 4 GiB, where the first instruction lies, as it is in
// the guest: however it got there.
func (g *guestMemory) firmware(ctx context.Context, c *qmp.Client) ([]byte, error) {
	const top = 1<<32 - 1
	for _, r := range g.layout {
		if r.end != top || r.kind != "rom" && r.kind != "romd" {
			continue
		}
		size := int64(r.end - r.start + 1)
		if size > ovmf.MaxSize {
			return nil, fmt.Errorf("firmware of %d bytes", size)
		}
		err := c.Execute(ctx, "pmemsave", map[string]any{"val": r.start, "size": size, "filename": g.savedPath}, nil)
		if err != nil {
			return nil, err
		}
		data := make([]byte, size)
		if _, err := io.ReadFull(io.NewSectionReader(g.saved, 0, size), data); err != nil {
			return nil, fmt.Errorf("read the guest's firmware: %w", err)
		}
		return data, g.saved.Truncate(0)
	}
	return nil, fmt.Errorf("the guest has no firmware below 4 GiB")
}
