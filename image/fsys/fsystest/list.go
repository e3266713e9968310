package fsystest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealboot/sealboot/image/source"
)

// List describes each entry of a source in a line, content and attributes by their digests. Times are left out of the lines with times false.
func List(t testing.TB, src source.Source, times bool) []string {
	t.Helper()
	list, err := Walk(src, times)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// Walk is List that may fail.
func Walk(src source.Source, times bool) ([]string, error) {
	var list []string
	err := src.Walk(context.Background(), func(e source.Entry, content io.Reader) error {
		if e.Type == source.HardLink {
			list = append(list, fmt.Sprintf("%q = %q", e.Path, e.Link))
			return nil
		}
		line := fmt.Sprintf("%q %v %o %d:%d", e.Path, e.Type, e.Mode, e.UID, e.GID)
		if times {
			line += fmt.Sprintf(" at %d", e.ModTime.UnixNano())
		}
		if content != nil {
			h := sha256.New()
			n, err := io.Copy(h, content)
			if err != nil {
				return fmt.Errorf("%s: %w", e.Path, err)
			}
			if n != e.Size {
				return fmt.Errorf("%s: %d bytes of %d", e.Path, n, e.Size)
			}
			line += fmt.Sprintf(" %d bytes %x", n, h.Sum(nil)[:8])
		}
		if e.Type == source.Symlink {
			line += fmt.Sprintf(" to %q", e.Link)
		}
		if e.Type == source.CharDevice || e.Type == source.BlockDevice {
			line += fmt.Sprintf(" %d,%d", e.Major, e.Minor)
		}
		for _, x := range e.Xattrs {
			h := sha256.Sum256(x.Value)
			line += fmt.Sprintf(" %q %d %x", x.Name, len(x.Value), h[:4])
		}
		list = append(list, line)
		return nil
	})
	return list, err
}

// Compare holds two listings against each other.
func Compare(t testing.TB, want, got []string) {
	t.Helper()
	if len(want) < 10 {
		t.Fatalf("only %d entries to compare", len(want))
	}
	if len(want) != len(got) {
		t.Errorf("%d entries, not %d", len(got), len(want))
	}
	bad := 0
	for i := range min(len(want), len(got)) {
		if want[i] != got[i] {
			t.Errorf("got  %s\nwant %s", got[i], want[i])
			if bad++; bad == 5 {
				t.Fatal("and more")
			}
		}
	}
}

// Mount mounts an image where that is possible and gives the folder; umount ends it. Elsewhere ok is false.
func Mount(t testing.TB, image, options string) (dir string, umount func(), ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		return "", nil, false
	}
	dir = t.TempDir()
	if err := exec.Command("mount", "-o", "loop,"+options, image, dir).Run(); err != nil {
		return "", nil, false
	}
	mounted := true
	umount = func() {
		if mounted {
			mounted = false
			if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
				t.Errorf("umount: %v: %s", err, out)
			}
		}
	}
	t.Cleanup(umount)
	return dir, umount, true
}

// Crash syncs a new file of a mounted file system, so that its image is as a crash would leave it; remove takes the file away.
func Crash(t testing.TB, dir string) (remove func()) {
	t.Helper()
	file, err := os.Create(dir + "/synced")
	if err == nil {
		_, err = file.WriteString("synced")
	}
	if err == nil {
		err = errors.Join(file.Sync(), file.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(dir + "/synced"); err != nil {
			t.Fatal(err)
		}
	}
}

// Folder opens a folder as a source.
func Folder(t testing.TB, dir string) source.Source {
	t.Helper()
	src, err := source.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// Plain fills a folder with what needs no privilege: deep folders, a folder of many names, long names, symbolic links, an
// empty file, a large one and one with holes.
func Plain(t testing.TB, dir string, many int) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, content string) {
		check(os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640))
	}
	deep := strings.Repeat("/d", 40)
	check(os.MkdirAll(dir+deep, 0o755))
	write(deep+"/bottom", "here")
	check(os.Mkdir(dir+"/many", 0o711))
	for i := range many {
		write(fmt.Sprintf("many/name-of-file-number-%d", i), "")
	}
	check(os.Mkdir(dir+"/few", 0o755))
	for i := range 40 {
		write(fmt.Sprintf("few/%s-%d", strings.Repeat("n", 40), i), fmt.Sprint(i))
	}
	write(strings.Repeat("l", 255), "a long name")
	write("empty", "")
	write("small", "small\n")
	write("large", string(Noise(300<<10+17, 1)))
	check(os.Symlink("small", dir+"/link"))
	check(os.Symlink("/few/../few", dir+"/folder-link"))
	check(os.Symlink("loop", dir+"/loop"))
	// A longer one mkfs.xfs 6.1 writes without the header that it has in version 5.
	check(os.Symlink("/"+strings.Repeat("some/where/", 25), dir+"/long-link"))
	check(os.Chmod(dir+"/small", 0o4755))
	holes, err := os.Create(dir + "/holes")
	check(err)
	for _, at := range []int64{0, 1 << 20, 5<<20 + 5} {
		_, err := holes.WriteAt([]byte("data"), at)
		check(err)
	}
	check(holes.Truncate(7 << 20))
	check(holes.Close())
}

// Program copies the program that runs, a large file that compresses well in some places and badly in others.
func Program(t testing.TB, dir string) {
	t.Helper()
	program, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(dir+"/program", program, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// Noise gives bytes that do not compress and are the same each time.
func Noise(n int, seed uint32) []byte {
	b := make([]byte, n)
	for i := range b {
		seed = seed*1664525 + 1013904223
		b[i] = byte(seed >> 24)
	}
	return b
}

// rich is what a shell says best. It takes tools of attr and util-linux.
const rich = `
mkdir boot attrs big devices shrunk
printf kernel > boot/vmlinuz-6.1.0-9-amd64
ln -s vmlinuz-6.1.0-9-amd64 boot/vmlinuz
ln boot/vmlinuz-6.1.0-9-amd64 hard-link
mknod devices/null c 1 3; mknod devices/high c 500 70000; mknod devices/disk b 8 17; mkfifo devices/fifo
chown 1234:70000 devices/null; chmod 2750 devices
for i in {1..250}; do : > big/$i-abcdefghijklmnopqrstuvwxyz; done
for i in {1..200}; do : > shrunk/$i-abcdefghijklmnopqrstuvwxyz; done
rm shrunk/1[0-5]* shrunk/[3-7]*
touch attrs/one attrs/many attrs/remote attrs/acl attrs/capability
setfattr -n user.a -v b attrs/one
setfattr -n user.empty attrs/one
setfattr -n trusted.t -v 0x00ff attrs/one
setfattr -n security.capability -v 0x0100000200200000000000000000000000000000 attrs/capability
setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff02000400e803000004000400ffffffff10000600ffffffff20000400ffffffff attrs/acl
fallocate -l 300K preallocated; printf written | dd of=preallocated bs=1 seek=100000 conv=notrunc status=none
truncate -s 80M sparse; printf end | dd of=sparse bs=1 seek=70000000 conv=notrunc status=none
yes 'some text to share' | head -c 200000 > original; cp --reflink=auto original copy; printf x | dd of=copy bs=1 seek=70000 conv=notrunc status=none
touch -d '2040-01-02 03:04:05.678' late; touch -d '1960-01-02 03:04:05.678' early
`

// Rich fills a mounted file system with what only a kernel makes: fragments, holes, space that is not written, shared
// blocks, folders that shrank, attributes of up to three times some bytes, devices.
func Rich(t testing.TB, dir string, fragments, attribute int) {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := exec.Command("bash", "-euc", rich)
	run.Dir = dir
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	check(os.Symlink(strings.Repeat("a", 1000), dir+"/remote-link"))
	check(os.Symlink(strings.Repeat("b", 300), dir+"/middle-link"))
	for i := range 60 {
		check(unix.Setxattr(dir+"/attrs/many", fmt.Sprint("user.name-", i), Noise(90, uint32(i)), 0))
	}
	for i := range 3 {
		check(unix.Setxattr(dir+"/attrs/remote", fmt.Sprint("user.remote-", i), Noise(attribute*(i+1), uint32(i)), 0))
	}
	pieces, err := os.Create(dir + "/fragments")
	check(err)
	for i := range int64(fragments) {
		_, err := pieces.WriteAt([]byte(fmt.Sprint("piece ", i)), i*2*4096)
		check(err)
	}
	check(pieces.Close())
}
