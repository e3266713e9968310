package psp

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitOptions(t *testing.T) {
	args := []string{"-S", "--machine", "q35", "-append", "-object sev-guest", "-no-reboot", "disk.img", "-drive", "-"}
	options, err := splitOptions(args)
	if err != nil {
		t.Fatal(err)
	}
	want := []option{
		{name: "S"}, {"machine", "q35", true}, {"append", "-object sev-guest", true}, {name: "no-reboot"}, {"", "disk.img", true}, {"drive", "-", true},
	}
	if !slices.Equal(options, want) {
		t.Errorf("%+v", options)
	}
	if got := joinOptions(options); strings.Join(got, " ") != strings.Replace(strings.Join(args, " "), "--", "-", 1) {
		t.Errorf("%q", got)
	}
	if _, err := splitOptions([]string{"-S", "-m"}); err == nil {
		t.Error("an option without its argument")
	}
}

func TestProperties(t *testing.T) {
	for text, want := range map[string]string{
		"q35,accel=kvm":                     "type=q35,accel=kvm",
		"q35,a=b,,c,d=e=f":                  "type=q35,a=b,,c,d=e=f",
		"type=q35,usb=off,usb=on":           "type=q35,usb=off,usb=on",
		"q35,server,nowait":                 "type=q35,server=on,wait=off",
		"":                                  "",
		"a,,b":                              "type=a,,b",
		`{"type":"q35","n":5,"x":true}`:     "n=5,type=q35,x=on",
		`{"s":"a,b","f":false,"t":"quo\""}`: `f=off,s=a,,b,t=quo"`,
	} {
		p, err := parseProperties(text, "type")
		if err != nil || p.String() != want {
			t.Errorf("%q gives %q, %v, want %q", text, p, err, want)
		}
	}
	p, _ := parseProperties("x,a=1,a=2,b=on", "type")
	if v, ok := p.get("a"); !ok || v != "2" || !p.on("b") || p.on("a") || p.without("a").String() != "type=x,b=on" {
		t.Errorf("%q", p)
	}
	for _, bad := range []string{"x,=y", `{"a":`, `{]`} {
		if _, err := parseProperties(bad, "type"); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestCommandLine(t *testing.T) {
	c, err := parseCommandLine(strings.Fields(`-machine q35,accel=kvm:tcg,kernel-irqchip=split,memory-encryption=sev0,vmport=off
		-cpu EPYC-v4,+x -smp 2,sockets=1 -m size=1G,slots=2 -kernel K -initrd I -append A -S -enable-kvm
		-object {"qom-type":"sev-guest","id":"sev0","policy":5,"cbitpos":51,"reduced-phys-bits":1,"kernel-hashes":true}
		-chardev socket,id=a,path=/x,,y,server=on,wait=off -mon chardev=a,mode=control
		-chardev stdio,id=b -mon chardev=b,mode=readline -qmp tcp:127.0.0.1:1,server -object rng-random,id=r`))
	if err != nil {
		t.Fatal(err)
	}
	want := `-machine q35,vmport=off,accel=tcg -cpu max -smp 2,sockets=1 -m size=1G,slots=2 -kernel K -initrd I -append A -accel tcg ` +
		`-chardev stdio,id=b -mon chardev=b,mode=readline -object rng-random,id=r -machine memory-backend=` + ourBackend
	if got := strings.Join(joinOptions(c.rest), " "); got != want {
		t.Errorf("QEMU gets\n%s, want\n%s", got, want)
	}
	if c.guest == nil || c.guest.policy != 5 || !c.guest.kernelHashes || c.cpu != "EPYC-v4" || c.vcpus != 2 || !c.stopped || !c.kvm ||
		c.memory != 1<<30 || c.kernel != "K" || c.initrd != "I" || c.append != "A" {
		t.Errorf("%+v, guest %+v", c, c.guest)
	}
	if len(c.monitors) != 2 || c.monitors[0].address != "/x,y" || c.monitors[0].wait || c.monitors[1].address != "127.0.0.1:1" || !c.monitors[1].wait {
		t.Errorf("monitors %+v", c.monitors)
	}
}

// TestMemoryObject: a memory object of the user's becomes ours, under its name.
func TestMemoryObject(t *testing.T) {
	guest := "-accel kvm -object sev-guest,id=s,cbitpos=51,reduced-phys-bits=1 "
	c, err := parseCommandLine(strings.Fields(guest + "-machine q35,confidential-guest-support=s,memory-backend=ram1 -m 512 " +
		"-object memory-backend-memfd,id=ram1,size=512M,share=on -object memory-backend-ram,id=other,size=1G"))
	if err != nil {
		t.Fatal(err)
	}
	want := "-accel tcg -machine q35,memory-backend=ram1 -m 512 -object memory-backend-ram,id=other,size=1G"
	if got := strings.Join(joinOptions(c.rest), " "); got != want || c.memory != 512<<20 || c.backend != "ram1" {
		t.Errorf("QEMU gets %q, memory %d in %s", got, c.memory, c.backend)
	}
	machine := "-machine q35,confidential-guest-support=s "
	for _, bad := range []string{"-machine memory-backend=ram1", "-m 0", "-m 3M", "-m -1", "-m 1e30G", "-m NaN", "-m 2T"} {
		if _, err := parseCommandLine(strings.Fields(guest + machine + bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]int64{"128": 128 << 20, "1.5G": 3 << 29, "2048k": 2 << 20, "16777216b": 16 << 20, "1T": 1 << 40} {
		if got, err := parseSize(text, 1<<20); err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "G", "x", "-1", "0", "inf", "nan", "1e99", "0x"} {
		if got, err := parseSize(bad, 1<<20); err == nil {
			t.Errorf("%q is %d", bad, got)
		}
	}
	for text, want := range map[string]int{"4": 4, "cpus=3,maxcpus=8": 3, "sockets=2,cores=3,threads=2": 12, "maxcpus=4": 1} {
		p, _ := parseProperties(text, "cpus")
		if got, err := countVCPUs(p); err != nil || got != want {
			t.Errorf("-smp %s: %d, %v", text, got, err)
		}
	}
	for _, bad := range []string{"0", "-1", "x", "5000", "sockets=0", "sockets=4096,cores=4096,threads=4096"} {
		p, _ := parseProperties(bad, "cpus")
		if got, err := countVCPUs(p); err == nil {
			t.Errorf("-smp %s: %d", bad, got)
		}
	}
}

func TestMonitorSpecs(t *testing.T) {
	for _, bad := range []string{"", "unix:", "unix", "pty", "unix:/x,fd=3", "tcp:h:1,telnet=on", "unix:/x,=y", "exec:date"} {
		if spec, err := parseQMPOption(bad); err == nil {
			t.Errorf("-qmp %q gives %+v", bad, spec)
		}
	}
	for _, bad := range []string{"-qmp stdio -qmp stdio", "-mon chardev=none,mode=control", "-chardev null,id=n -mon n,mode=control"} {
		if _, err := parseCommandLine(strings.Fields(bad)); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// layoutText is from QEMU 7.2: q35 with 256 MiB in a memory object, after `info mtree -f`.
const layoutText = `FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan

FlatView #1
 AS "memory", root: system
 AS "cpu-memory-0", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): sev-stand-in-ram
  00000000000c0000-00000000000dffff (prio 1, rom): pc.rom
  00000000000e0000-00000000000fffff (prio 1, rom): isa-bios
  0000000000100000-000000000fffffff (prio 0, ram): sev-stand-in-ram @0000000000100000
  00000000fed00000-00000000fed003ff (prio 0, i/o): hpet
  00000000ffc00000-00000000ffffffff (prio 0, romd): system.flash0

FlatView #2
 Root memory region: (none)
  No rendered FlatView
`

func TestLayout(t *testing.T) {
	layout, err := parseLayout(layoutText, ourBackend)
	if err != nil || len(layout) != 6 {
		t.Fatalf("%d regions, %v", len(layout), err)
	}
	m := guestMemory{layout: layout}
	for _, c := range []struct {
		address uint64
		size    int
		offset  int64
		fails   string
	}{
		{0x1000, 16, 0x1000, ""}, {0x100000, 1 << 20, 0x100000, ""}, {0xfffffff, 1, 0xfffffff, ""},
		{0xfffffff, 2, 0, "exceeded"}, {0x10000000, 1, 0, "No memory"}, {0xc0000, 1, 0, "not RAM"}, {0xffffffffffffffff, 1, 0, "No memory"},
	} {
		offset, err := m.translate(c.address, c.size)
		if c.fails == "" && (err != nil || offset != c.offset) || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
			t.Errorf("%#x: %#x, %v", c.address, offset, err)
		}
	}
	for _, bad := range []string{"", "FlatView #0\n Root memory region: system\n", strings.ReplaceAll(layoutText, "system\n", "other\n")} {
		if _, err := parseLayout(bad, ourBackend); err == nil {
			t.Errorf("%q is a layout", bad)
		}
	}
}

func FuzzLayout(f *testing.F) {
	f.Add(layoutText)
	f.Fuzz(func(t *testing.T, text string) {
		layout, err := parseLayout(text, ourBackend)
		if err != nil {
			return
		}
		for _, r := range layout {
			if r.start > r.end {
				t.Errorf("%+v", r)
			}
		}
	})
}

func FuzzCommandLine(f *testing.F) {
	f.Add("-machine\nq35,accel=kvm,confidential-guest-support=sev0\n-object\nsev-guest,id=sev0,policy=0x5,cbitpos=51,reduced-phys-bits=1\n-m\n1G\n-smp\n2")
	f.Add("-qmp\nunix:/x,server=on,wait=off\n-chardev\nsocket,id=a,path=/y\n-mon\nchardev=a,mode=control")
	f.Add("-object\n{\"qom-type\":\"sev-guest\",\"id\":\"s\"}\n-S")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parseCommandLine(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		if c.guest != nil && (c.memory <= 0 || c.memory > maxMemory) || c.vcpus < 1 || c.vcpus > maxVCPUs {
			t.Errorf("%+v", c)
		}
		for _, o := range c.rest {
			p, err := parseProperties(o.value, "qom-type")
			if kind, _ := p.get("qom-type"); o.name == "object" && (err != nil || kind == "sev-guest") {
				t.Errorf("QEMU gets %q", o.value)
			}
		}
	})
}
