package psp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// commandLine is what the stand-in takes from a QEMU's command line, and what it leaves for the
// QEMU behind it.
type commandLine struct {
	rest     []option // for the real QEMU
	guest    *guestObject
	kvm      bool // the user asked for KVM: then there is a secure processor
	stopped  bool // -S
	asking   bool // -help, -version, -device help: QEMU answers and ends
	cpu      string
	vcpus    int
	kernel   string
	initrd   string
	append   string
	monitors []monitorSpec
	memory   int64  // bytes, only with a guest object
	backend  string // id of the memory backend
}

// Memory of a guest when nothing is said (QEMU, pc machines).
const (
	defaultMemory = 128 << 20
	maxMemory     = 1 << 40
	ourBackend    = "sev-stand-in-ram"
)

func parseCommandLine(args []string) (*commandLine, error) {
	options, err := splitOptions(args)
	if err != nil {
		return nil, err
	}
	c := &commandLine{vcpus: 1, memory: defaultMemory, backend: ourBackend}
	var guests []*guestObject
	var confidential string // the object that the machine names
	chardevs := map[string]properties{}
	for _, o := range options {
		keep, err := c.take(o, &guests, &confidential, chardevs)
		if err != nil {
			return nil, fmt.Errorf("-%s %s: %w", o.name, o.value, err)
		}
		if keep != nil {
			c.rest = append(c.rest, *keep)
		}
	}
	if err := c.takeMonitors(chardevs); err != nil {
		return nil, err
	}
	if confidential != "" {
		i := slices.IndexFunc(guests, func(g *guestObject) bool { return g.id == confidential })
		if i < 0 {
			return nil, fmt.Errorf("-machine confidential-guest-support=%s: no sev-guest object has that id", confidential)
		}
		c.guest = guests[i]
		if !c.kvm {
			return nil, fmt.Errorf("accelerator does not support confidential guest sev-guest")
		}
		if err := c.takeMemory(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// take looks at one option and gives what the real QEMU gets in its place, or nil.
func (c *commandLine) take(o option, guests *[]*guestObject, confidential *string, chardevs map[string]properties) (*option, error) {
	switch o.name {
	case "h", "help", "version":
		c.asking = true
	case "S":
		c.stopped = true
		return nil, nil // the stand-in starts QEMU stopped in any case
	case "daemonize":
		return nil, fmt.Errorf("the stand-in stays with its QEMU and cannot do this")
	case "enable-kvm":
		c.kvm = true
		return &option{name: "accel", value: "tcg", has: true}, nil
	case "accel":
		p, err := parseProperties(o.value, "accel")
		if err != nil {
			return nil, err
		}
		if name, _ := p.get("accel"); name == "kvm" {
			c.kvm = true
			o.value = "tcg"
		}
	case "machine", "M":
		return c.takeMachine(o, confidential)
	case "cpu":
		c.cpu, _, _ = strings.Cut(o.value, ",")
		if strings.HasPrefix(c.cpu, "EPYC") || c.cpu == "host" {
			o.value = "max"
		}
	case "smp":
		p, err := parseProperties(o.value, "cpus")
		if err != nil {
			return nil, err
		}
		if c.vcpus, err = countVCPUs(p); err != nil {
			return nil, err
		}
	case "object":
		p, err := parseProperties(o.value, "qom-type")
		if err != nil {
			return nil, err
		}
		switch kind, _ := p.get("qom-type"); kind {
		case "sev-guest":
			g, err := parseGuestObject(p)
			if err != nil {
				return nil, err
			}
			*guests = append(*guests, g)
			return nil, nil
		case "sev-snp-guest":
			return nil, fmt.Errorf("the stand-in knows sev-guest only")
		}
	case "kernel":
		c.kernel = o.value
	case "initrd":
		c.initrd = o.value
	case "append":
		c.append = o.value
	case "chardev":
		p, err := parseProperties(o.value, "backend")
		if err != nil {
			return nil, err
		}
		if id, ok := p.get("id"); ok {
			chardevs[id] = p
		}
	}
	if o.value == "help" || o.value == "?" || strings.HasSuffix(o.value, ",help") {
		c.asking = true
	}
	return &o, nil
}

func (c *commandLine) takeMachine(o option, confidential *string) (*option, error) {
	p, err := parseProperties(o.value, "type")
	if err != nil {
		return nil, err
	}
	if accel, ok := p.get("accel"); ok {
		first, _, _ := strings.Cut(accel, ":")
		c.kvm = c.kvm || first == "kvm"
		p = append(p.without("accel"), property{"accel", "tcg"})
	}
	for _, key := range []string{"confidential-guest-support", "memory-encryption"} {
		if id, ok := p.get(key); ok {
			*confidential = id
		}
	}
	// In-kernel interrupt controllers are KVM's.
	p = p.without("confidential-guest-support", "memory-encryption", "kernel-irqchip", "kernel_irqchip")
	if backend, ok := p.get("memory-backend"); ok {
		c.backend = backend
	}
	if len(p) == 0 {
		return nil, nil
	}
	// QEMU takes a first part without a key as the machine's type in every version.
	text := p.String()
	if p[0].key == "type" {
		text = strings.TrimPrefix(text, "type=")
	}
	return &option{name: "machine", value: text, has: true}, nil
}

// takeMemory replaces the guest's memory with a file that the stand-in shares.
func (c *commandLine) takeMemory() error {
	var rest []option
	found := false
	for _, o := range c.rest {
		switch o.name {
		case "m":
			p, err := parseProperties(o.value, "size")
			if err != nil {
				return fmt.Errorf("-m %s: %w", o.value, err)
			}
			if size, ok := p.get("size"); ok && !found {
				if c.memory, err = parseSize(size, 1<<20); err != nil {
					return fmt.Errorf("-m %s: %w", o.value, err)
				}
			}
		case "object":
			p, err := parseProperties(o.value, "qom-type")
			if err != nil {
				return fmt.Errorf("-object %s: %w", o.value, err)
			}
			kind, _ := p.get("qom-type")
			id, _ := p.get("id")
			if strings.HasPrefix(kind, "memory-backend-") && id == c.backend {
				size, _ := p.get("size")
				if c.memory, err = parseSize(size, 1); err != nil {
					return fmt.Errorf("-object %s: %w", o.value, err)
				}
				found = true
				continue
			}
		}
		rest = append(rest, o)
	}
	if c.backend != ourBackend && !found {
		return fmt.Errorf("-machine memory-backend=%s: no memory object has that id", c.backend)
	}
	if c.memory <= 0 || c.memory%(2<<20) != 0 || c.memory > maxMemory {
		return fmt.Errorf("guest memory of %d bytes: want a multiple of 2 MiB", c.memory)
	}
	c.rest = rest
	if !found {
		c.rest = append(c.rest, option{"machine", "memory-backend=" + c.backend, true})
	}
	return nil
}

// parseSize reads QEMU's sizes: 1024 (in the given unit), 512M, 1.5G.
func parseSize(text string, unit float64) (int64, error) {
	units := map[byte]float64{'b': 1, 'k': 1 << 10, 'm': 1 << 20, 'g': 1 << 30, 't': 1 << 40}
	number := text
	if n := len(text); n > 0 {
		if u, ok := units[text[n-1]|0x20]; ok {
			unit, number = u, text[:n-1]
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v*unit >= 1) || v*unit > maxMemory {
		return 0, fmt.Errorf("size %q", text)
	}
	return int64(v * unit), nil
}

// maxVCPUs bounds what is measured with SEV-ES; QEMU's q35 takes at most 4096.
const maxVCPUs = 4096

func countVCPUs(p properties) (int, error) {
	count := 1
	if cpus, ok := p.get("cpus"); ok {
		n, err := strconv.Atoi(cpus)
		if err != nil {
			return 0, fmt.Errorf("Parameter 'cpus' expects a number")
		}
		count = n
	} else {
		for _, key := range []string{"drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads"} {
			if text, ok := p.get(key); ok {
				n, err := strconv.Atoi(text)
				if err != nil || n < 1 || n > maxVCPUs {
					return 0, fmt.Errorf("Parameter '%s' expects a number", key)
				}
				count *= n
			}
			if count > maxVCPUs {
				break
			}
		}
	}
	if count < 1 || count > maxVCPUs {
		return 0, fmt.Errorf("%d vCPUs", count)
	}
	return count, nil
}
