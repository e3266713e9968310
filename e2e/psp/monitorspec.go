package psp

import (
	"fmt"
	"net"
	"strings"
)

// monitorSpec is a QMP monitor that the user asked for. The stand-in serves it in QEMU's place.
type monitorSpec struct {
	text    string // as given, for messages
	stdio   bool
	network string // "unix" or "tcp"
	address string
	server  bool // listen; otherwise connect
	wait    bool // the machine starts only when a client is there
}

// takeMonitors moves the QMP monitors from the real QEMU's options to the stand-in's.
func (c *commandLine) takeMonitors(chardevs map[string]properties) error {
	var rest []option
	taken := map[string]bool{}
	for _, o := range c.rest {
		switch o.name {
		case "qmp", "qmp-pretty":
			if o.value == "none" {
				continue
			}
			spec, err := parseQMPOption(o.value)
			if err != nil {
				return fmt.Errorf("-%s %s: %w", o.name, o.value, err)
			}
			c.monitors = append(c.monitors, spec)
		case "mon":
			p, err := parseProperties(o.value, "chardev")
			if err != nil {
				return fmt.Errorf("-mon %s: %w", o.value, err)
			}
			if mode, _ := p.get("mode"); mode != "control" {
				rest = append(rest, o)
				continue
			}
			id, _ := p.get("chardev")
			chardev, ok := chardevs[id]
			if !ok {
				return fmt.Errorf("-mon %s: chardev \"%s\" not found", o.value, id)
			}
			spec, err := parseMonitorChardev(chardev)
			if err != nil {
				return fmt.Errorf("-mon %s: %w", o.value, err)
			}
			spec.text = o.value
			taken[id] = true
			c.monitors = append(c.monitors, spec)
		default:
			rest = append(rest, o)
		}
	}
	c.rest = nil
	for _, o := range rest {
		if o.name == "chardev" {
			p, err := parseProperties(o.value, "backend")
			if err != nil {
				return fmt.Errorf("-chardev %s: %w", o.value, err)
			}
			if id, _ := p.get("id"); taken[id] {
				continue
			}
		}
		c.rest = append(c.rest, o)
	}
	stdio := 0
	for _, m := range c.monitors {
		if m.stdio {
			stdio++
		}
	}
	if stdio > 1 {
		return fmt.Errorf("cannot use stdio by multiple character devices")
	}
	return nil
}

// parseQMPOption reads -qmp's short form: stdio, unix:PATH,…, tcp:HOST:PORT,….
func parseQMPOption(text string) (monitorSpec, error) {
	parts := splitCommas(text)
	if len(parts) == 0 {
		return monitorSpec{}, fmt.Errorf("no address")
	}
	kind, address, _ := strings.Cut(parts[0], ":")
	p, err := parseParts(parts[1:], "")
	if err != nil {
		return monitorSpec{}, err
	}
	switch kind {
	case "stdio":
		return monitorSpec{text: text, stdio: true}, nil
	case "unix":
		return socketSpec(text, "unix", address, p)
	case "tcp":
		return socketSpec(text, "tcp", address, p)
	}
	return monitorSpec{}, fmt.Errorf("the stand-in serves QMP on stdio, unix and tcp only")
}

func parseMonitorChardev(p properties) (monitorSpec, error) {
	kind, _ := p.get("backend")
	path, isPath := p.get("path")
	host, _ := p.get("host")
	port, isPort := p.get("port")
	switch {
	case kind == "stdio":
		return monitorSpec{text: p.String(), stdio: true}, nil
	case kind == "socket" && isPath:
		return socketSpec(p.String(), "unix", path, p)
	case kind == "socket" && isPort:
		return socketSpec(p.String(), "tcp", net.JoinHostPort(host, port), p)
	}
	return monitorSpec{}, fmt.Errorf("the stand-in serves QMP on stdio, unix and tcp only")
}

func socketSpec(text, network, address string, p properties) (monitorSpec, error) {
	for _, key := range []string{"fd", "tls-creds", "telnet", "websocket", "abstract"} {
		if value, ok := p.get(key); ok && value != "off" {
			return monitorSpec{}, fmt.Errorf("the stand-in does not know '%s' for a monitor", key)
		}
	}
	if address == "" {
		return monitorSpec{}, fmt.Errorf("no address")
	}
	server := p.on("server")
	wait, given := p.get("wait")
	return monitorSpec{text: text, network: network, address: address, server: server, wait: server && (!given || wait == "on")}, nil
}
