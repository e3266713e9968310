package xfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/internal/testtool"
)

// protofile describes a folder to mkfs.xfs -p, and devices besides.
func protofile(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	mode := func(kind string, e source.Entry) string {
		bit := func(mask uint32, c string) string {
			if e.Mode&mask == 0 {
				return "-"
			}
			return c
		}
		return fmt.Sprintf("%s%s%s%03o %d %d", kind, bit(0o4000, "u"), bit(0o2000, "g"), e.Mode&0o777, e.UID, e.GID)
	}
	depth := 0
	err := fsystest.Folder(t, dir).Walk(context.Background(), func(e source.Entry, _ io.Reader) error {
		if e.Path == "/" {
			fmt.Fprintf(&b, "/\n0 0\n%s\n", mode("d", e))
			return nil
		}
		for ; depth > strings.Count(e.Path, "/")-1; depth-- {
			b.WriteString("$\n")
		}
		name := filepath.Base(e.Path)
		switch e.Type {
		case source.Folder:
			fmt.Fprintf(&b, "%s %s\n", name, mode("d", e))
			depth++
		case source.Regular:
			fmt.Fprintf(&b, "%s %s %s\n", name, mode("-", e), filepath.Join(dir, e.Path))
		case source.Symlink:
			fmt.Fprintf(&b, "%s %s %s\n", name, mode("l", e), e.Link)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for ; depth > 0; depth-- {
		b.WriteString("$\n")
	}
	b.WriteString("~disk b--600 7 8 8 17\n~null c--666 0 0 1 3\n~pipe p--640 1 2\n$\n$\n")
	name := filepath.Join(t.TempDir(), "protofile")
	if err := os.WriteFile(name, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// devices are what protofile adds.
var devices = []string{`"/~disk" block device 600 7:8 8,17`, `"/~null" character device 666 0:0 1,3`, `"/~pipe" named pipe 640 1:2`}

// TestProtofile compares a folder with what mkfs.xfs made of it, in all forms that Debian 12 and 13 make by default, and others.
func TestProtofile(t *testing.T) {
	dir := t.TempDir()
	fsystest.Plain(t, dir, 10000)
	want := append(fsystest.List(t, fsystest.Folder(t, dir), false), devices...)
	proto := protofile(t, dir)
	for name, args := range map[string][]string{
		"Debian 12": {"-i", "nrext64=0"}, "Debian 13": {"-i", "nrext64=1", "-m", "rmapbt=1"}, "large blocks": {"-b", "size=65536"},
		"version 4": {"-m", "crc=0"}, "small blocks": {"-m", "crc=0", "-b", "size=512", "-n", "ftype=0,size=4096"},
		"all smaller": {"-b", "size=1024", "-n", "size=16384", "-i", "size=512", "-d", "agcount=7"}, "old": {"-m", "bigtime=0,finobt=0,reflink=0,inobtcount=0", "-i", "sparse=0", "-s", "size=4096"},
	} {
		t.Run(name, func(t *testing.T) {
			size := int64(320 << 20)
			if name == "large blocks" {
				size = 2 << 30 // from xfsprogs 6.13 on, the smallest log has 124 MiB
			}
			image := mkfs(t, size, append(args, "-p", proto)...)
			if name == "Debian 12" { // gives the file system another UUID; its blocks keep the old one
				testtool.Output(t, testtool.Program(t, "xfs_db"), "-x", "-c", "uuid generate", image)
			}
			setAttributes(t, image, !strings.Contains(fmt.Sprint(args), "crc=0"))
			r := open(t, image)
			attributes := 5 + 9 + 60*60
			if r.super.v5() {
				attributes += 5000 + 60000
			}
			fsystest.Compare(t, want, withoutAttributes(t, fsystest.List(t, r, false), attributes))
			fsystest.Overwrite(t, image, r.Allocated)
			fsystest.Compare(t, want, withoutAttributes(t, fsystest.List(t, open(t, image), false), attributes))
			testtool.Output(t, testtool.Program(t, "xfs_repair"), "-n", image)
		})
	}
}

var attribute = regexp.MustCompile(` "(user|security|trusted)\.[a-z0-9-]+" (\d+) [0-9a-f]+`)

// withoutAttributes takes out those that setAttributes set, and counts their bytes.
func withoutAttributes(t *testing.T, list []string, bytes int) []string {
	total := 0
	for i, line := range list {
		for _, m := range attribute.FindAllStringSubmatch(line, -1) {
			var n int
			if _, err := fmt.Sscan(m[2], &n); err != nil {
				t.Fatal(err)
			}
			total += n
		}
		list[i] = attribute.ReplaceAllString(line, "")
	}
	if total != bytes {
		t.Errorf("attributes of %d bytes, not %d", total, bytes)
	}
	return list
}

// TestGRUB has GRUB read what it can. With nrext64, GRUB 2.12 as released misreads folders of one block; Debian 13's build has that mended,
// but which build a guest's firmware holds is not known here.
func TestGRUB(t *testing.T) {
	dir := t.TempDir()
	fsystest.Plain(t, dir, 400)
	proto := protofile(t, dir)
	grub := testtool.Program(t, "grub-fstest")
	for name, test := range map[string]struct {
		args       []string
		unreadable string
	}{"Debian 12": {[]string{"-i", "nrext64=0"}, ""}, "Debian 13": {[]string{"-i", "nrext64=1", "-m", "rmapbt=1"}, "nrext64"}, "version 4": {[]string{"-m", "crc=0"}, ""}} {
		t.Run(name, func(t *testing.T) {
			image := mkfs(t, 320<<20, append(test.args, "-p", proto)...)
			r := open(t, image)
			if got := strings.Join(r.UnreadableByGRUB(), " "); got != test.unreadable {
				t.Errorf("unreadable: %q, not %q", got, test.unreadable)
			}
			want, err := r.ReadFile("/large", 4<<20)
			if err != nil {
				t.Fatal(err)
			}
			if got := testtool.Output(t, grub, image, "cat", "(loop0)/large"); got != string(want) {
				t.Error("GRUB reads another file")
			}
			names, err := r.ReadDir("/few")
			if err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(grub, image, "ls", "(loop0)/few/").CombinedOutput()
			if err != nil {
				t.Fatal(err)
			}
			clean := len(strings.Fields(string(out))) == len(names) && !strings.Contains(string(out), "error")
			if !clean && test.unreadable == "" {
				t.Errorf("GRUB finds of %d names: %s", len(names), out)
			}
			t.Logf("%s: this GRUB reads its folders: %v", name, clean)
		})
	}
}
