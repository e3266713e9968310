package agent

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/agent/receipt"
	"github.com/sealboot/sealboot/internal/testtool"
)

func TestParseOrder(t *testing.T) {
	const disk = "sealboot.disk=" + testUUID
	for _, c := range []struct {
		line string
		want Order
		err  error
	}{
		{"root=/dev/mapper/sealboot-root rdinit=/sealboot/agent " + disk + " ro\n", Order{testUUID, true, "", "", "/sbin/init"}, nil},
		{disk + " rw rootfstype=ext4 rootflags=noatime,discard init=/bin/init", Order{testUUID, false, "ext4", "noatime,discard", "/bin/init"}, nil},
		{disk + ` rw "a b=ro" -- ro init=/x`, Order{testUUID, false, "", "", "/sbin/init"}, nil},
		{"sealboot.disk=00000000-0000-0000-0000-000000000000 " + strings.ToUpper(disk[:0]) + disk, Order{testUUID, true, "", "", "/sbin/init"}, nil},
		{"sealboot.disk=" + strings.ToUpper(testUUID), Order{testUUID, true, "", "", "/sbin/init"}, nil},
		{"ro quiet", Order{}, ErrNoDiskName},
		{"sealboot.disk=", Order{}, ErrNoDiskName},
		{"sealboot.disk=" + testUUID + "0", Order{}, ErrNoDiskName},
		{"sealboot.disk=../../dev/sda", Order{}, ErrNoDiskName},
		{"-- " + disk, Order{}, ErrNoDiskName},
		{disk + " init=sh", Order{}, ErrNoInit},
	} {
		got, err := ParseOrder(c.line)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%q: %+v, %v, want %+v, %v", c.line, got, err, c.want, c.err)
		}
	}
}

func TestLoadModules(t *testing.T) {
	broken := errors.New("invalid module format")
	for _, c := range []struct {
		name, list string
		fails      map[string]error
		loaded     string
		want       error
	}{
		{"all", "try a.ko\nneed b.ko\n", nil, "a b", nil},
		{"optional fails", "try a.ko\nneed b.ko\n", map[string]error{"a": unix.ENODEV}, "a b", nil},
		{"there already", "need a.ko\nneed b.ko\n", map[string]error{"a": unix.EEXIST}, "a b", nil},
		{"needed fails", "need a.ko\nneed b.ko\n", map[string]error{"a": broken}, "a", ErrModules},
		{"needed of hardware fails", "need a.ko\n", map[string]error{"a": unix.ENODEV}, "a", ErrModules},
		{"path", "need ../a.ko\n", nil, "", ErrModules},
		{"no verb", "a.ko\n", nil, "", ErrModules},
		{"empty line", "need a.ko\n\n", nil, "a", ErrModules},
		{"empty", "", nil, "", nil},
	} {
		var loaded []string
		err := LoadModules(c.list, func(file string) error {
			name := strings.TrimSuffix(strings.TrimPrefix(file, ModuleFolder+"/"), ".ko")
			loaded = append(loaded, name)
			return c.fails[name]
		})
		if got := strings.Join(loaded, " "); got != c.loaded || !errors.Is(err, c.want) || c.fails["a"] == broken && !errors.Is(err, broken) {
			t.Errorf("%s: loaded %q, error %v; want %q, %v", c.name, got, err, c.loaded, c.want)
		}
	}
}

// TestLateDisk: a disk may appear, and be unreadable at first.
func TestLateDisk(t *testing.T) {
	g := newGood(t)
	m := &lateMachine{machine: machine{"vda": emptyDisk(), "vda1": g.disk}, appears: 3}
	found, err := Find(t.Context(), m, testUUID)
	if err != nil || found.Name != "vda1" {
		t.Fatalf("found %v, error %v", found, err)
	}
	if !m.machine["vda"].closed || g.disk.closed {
		t.Error("another disk was left open, or the right one closed")
	}
}

type lateMachine struct {
	machine
	looks, appears int
}

func (m *lateMachine) List() ([]string, error) {
	m.looks++
	if m.looks < m.appears {
		return []string{"vda"}, nil
	}
	return m.machine.List()
}

func (m *lateMachine) Open(name string) (Disk, error) {
	if name == "vda1" && m.looks == m.appears {
		return nil, unix.ENXIO
	}
	return m.machine.Open(name)
}

func TestFindEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	broken := &brokenDisk{emptyDisk()}
	_, err := Find(ctx, onlyDisk{broken}, testUUID)
	if !errors.Is(err, ErrNoDisk) || !strings.Contains(err.Error(), testUUID) || !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("error %v", err)
	}
}

type brokenDisk struct{ *memoryDisk }

func (brokenDisk) ReadAt([]byte, int64) (int, error) { return 0, iotest.ErrTimeout }

type onlyDisk struct{ disk Disk }

func (o onlyDisk) List() ([]string, error)   { return []string{"vda"}, nil }
func (o onlyDisk) Open(string) (Disk, error) { return o.disk, nil }

func TestSnapshot(t *testing.T) {
	d := &memoryDisk{content: []byte(strings.Repeat("0123456789", 1000)), size: 10000, reads: map[int64]int{}}
	d.answer = func(_ int64, times int, p []byte) {
		if times > 1 {
			clear(p)
		}
	}
	s := newSnapshot(d, d.size)
	checked := 0
	for _, r := range [][2]int64{{0, 10}, {5, 4100}, {4090, 12}, {9990, 10}, {0, 10000}, {0, 10000}} {
		got := make([]byte, r[1])
		n, err := s.ReadAt(got, r[0])
		if err != nil || string(got[:n]) != string(d.content[r[0]:r[0]+r[1]]) {
			t.Errorf("%d bytes at %d: %d bytes, %v, not what was there first", r[1], r[0], n, err)
		}
		checked++
	}
	if checked == 0 {
		t.Error("nothing was read")
	}
	if n, err := s.ReadAt(make([]byte, 20), 9990); n != 10 || err != io.EOF {
		t.Errorf("beyond the end: %d, %v", n, err)
	}
	if _, err := s.ReadAt(make([]byte, 1), -1); err == nil {
		t.Error("read before the begin")
	}
	short := &memoryDisk{content: make([]byte, 5000), size: 10000, reads: map[int64]int{}}
	if _, err := newSnapshot(short, 10000).ReadAt(make([]byte, 10000), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a disk that ends early: %v", err)
	}
}

func TestTableParams(t *testing.T) {
	table := Table{UUID: testUUID, Device: "254:1", Cipher: "aes-xts-plain64", Start: 16 << 20, Length: 1 << 30, SectorSize: 4096}
	if got, want := table.params("sealboot:x", 64), "aes-xts-plain64 :64:logon:sealboot:x 0 254:1 32768 1 sector_size:4096"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	table.SectorSize, table.IVOffset = 512, 8
	if got, want := table.params("sealboot:x", 64), "aes-xts-plain64 :64:logon:sealboot:x 8 254:1 32768"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestPrintable: what a host wrote on the disk cannot draw on a console or forge a line there.
func TestPrintable(t *testing.T) {
	got := printable("uuid \"\x1b[2J\r\nsealboot: disk unlocked\x00ä")
	if got != `uuid "?[2J?; sealboot: disk unlocked??` {
		t.Errorf("got %q", got)
	}
	if long := printable(strings.Repeat("x", 5000)); len(long) > maxLine+3 {
		t.Errorf("%d characters", len(long))
	}
}

// TestNoRescueShell: the distribution's initramfs is used only if its shell for rescue could be turned off.
func TestNoRescueShell(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		want  string
		file  string // with part of its content
		part  string
	}{
		{"none", nil, "", "", ""},
		{"initramfs-tools", []string{"init", "conf/initramfs.conf"}, "/init", "conf/conf.d/sealboot", "panic=1\nnoresume=y\n"},
		{"dracut", []string{"init", "lib/dracut-lib.sh"}, "/init", "etc/cmdline.d/99-sealboot.conf", "rd.shell=0 rd.emergency=poweroff noresume\n"},
		{"unknown", []string{"init", "hooks"}, "", "", ""},
		{"no init", []string{"conf/initramfs.conf"}, "", "", ""},
	} {
		root := t.TempDir()
		for _, name := range c.files {
			path := filepath.Join(root, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o755)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := distributionInit(root)
		if got != c.want || err != nil {
			t.Errorf("%s: %q, %v, want %q", c.name, got, err, c.want)
		}
		if c.file != "" {
			content, err := os.ReadFile(filepath.Join(root, c.file))
			if err != nil || !strings.Contains(string(content), c.part) {
				t.Errorf("%s: %s holds %q, %v", c.name, c.file, content, err)
			}
		}
	}
}

// TestKeepRun runs what is put into initramfs-tools' script, in a /run that is empty again.
func TestKeepRun(t *testing.T) {
	root := t.TempDir()
	for name, content := range map[string]string{
		"init": "", "conf/initramfs.conf": "", "scripts/init-top/ORDER": "echo udev starts\n", "run/udev/data/b254:0": "E:DM_NAME=x\nE:A=$B\n",
		"run/udev/rules.d/59-sealboot.rules": udevRule,
	} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	note := &receipt.Receipt{Session: [16]byte{1}, Key: [32]byte{2}, Used: receipt.Current}
	if err := leaveReceipt(root, note); err != nil {
		t.Fatal(err)
	}
	wantReceipt(t, root, note)
	if _, err := distributionInit(root); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.RemoveAll(filepath.Join(root, "run")), os.Mkdir(filepath.Join(root, "run"), 0o755)); err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join(root, "scripts/init-top/ORDER"))
	if err != nil {
		t.Fatal(err)
	}
	there := strings.ReplaceAll(string(script), "/run/", filepath.Join(root, "run")+"/")
	if said := testtool.Output(t, "/bin/sh", "-e", "-c", there); said != "udev starts\n" {
		t.Errorf("the script said %q", said)
	}
	if got, err := os.ReadFile(filepath.Join(root, "run/udev/data/b254:0")); string(got) != "E:DM_NAME=x\nE:A=$B\n" {
		t.Errorf("the record is %q, %v", got, err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "run/udev/rules.d/59-sealboot.rules")); string(got) != udevRule {
		t.Errorf("the rule is %q, %v", got, err)
	}
	wantReceipt(t, root, note)
}

// wantReceipt fails unless the receipt is there for root alone.
func wantReceipt(t *testing.T, root string, want *receipt.Receipt) {
	t.Helper()
	name := filepath.Join(root, receipt.Path)
	for path, mode := range map[string]os.FileMode{name: 0o600, filepath.Dir(name): 0o700 | os.ModeDir} {
		if info, err := os.Stat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want mode %v", path, info, err, mode)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := receipt.Parse(text); err != nil || *got != *want {
		t.Errorf("receipt %+v, %v, want %+v", got, err, want)
	}
}

func TestNotDisks(t *testing.T) {
	if !slices.Contains(notDisks, "dm-") || slices.Contains(notDisks, "sd") {
		t.Error("the list of devices to leave out is wrong")
	}
}
