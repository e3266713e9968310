package xfs

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/fsys/fsystest"
	"github.com/sealboot/sealboot/internal/protofile"
	"github.com/sealboot/sealboot/internal/testtool"
)

// protofileOf describes a folder to mkfs.xfs -p, and devices besides.
func protofileOf(t testing.TB, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := protofile.Write(&b, dir); err != nil {
		t.Fatal(err)
	}
	text := strings.TrimSuffix(b.String(), "$\n") + "~disk b--600 7 8 8 17\n~null c--666 0 0 1 3\n~pipe p--640 1 2\n$\n"
	name := filepath.Join(t.TempDir(), "protofile")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// devices are what protofileOf adds.
var devices = []string{`"/~disk" block device 600 7:8 8,17`, `"/~null" character device 666 0:0 1,3`, `"/~pipe" named pipe 640 1:2`}

// TestProtofile compares a folder with what mkfs.xfs made of it, in all forms that Debian 12 and 13 make by default, and others.
func TestProtofile(t *testing.T) {
	dir := t.TempDir()
	fsystest.Plain(t, dir, 10000)
	want := append(fsystest.List(t, fsystest.Folder(t, dir), false), devices...)
	proto := protofileOf(t, dir)
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
