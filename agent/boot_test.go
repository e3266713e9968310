package agent

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/agent/receipt"
	"github.com/sealboot/sealboot/image/source"
	"github.com/sealboot/sealboot/initramfs"
	"github.com/sealboot/sealboot/internal/testtool"
	"github.com/sealboot/sealboot/luks"
)

const (
	partitionStart = 1 << 20
	fsSize         = 32 << 20
	dataOffset     = 1 << 20
	marker         = "root speaks:"
)

// realMachine is what a boot needs: a Debian kernel with an initramfs that holds the agent, and a disk
// whose encrypted root answers with something that only it can know.
type realMachine struct {
	dir, kernel, disk string
	initramfs         []byte
	header            *luks.Header
	passphrase        []byte
	secret            string // in a file of the encrypted root
}

// TestBoot boots Debian's kernel under emulation. The tampered twins run after the good boot: without
// it, their refusals would prove nothing.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	m := newRealMachine(t)
	pin := m.header.Pin()
	keys := m.keys(m.passphrase, pin[:], nil, "")
	note, want := randomBytes(t, receipt.Size), ""
	withReceipt := m.keys(m.passphrase, pin[:], note, receipt.Previous)
	if r, err := receipt.New(note, []byte(receipt.Previous)); err != nil {
		t.Fatal(err)
	} else if text, err := r.Encode(); err != nil {
		t.Fatal(err)
	} else {
		want = fmt.Sprintf("receipt 600 0:0 in 700 0:0 on tmpfs %x", sha256.Sum256(text))
	}
	said := fmt.Sprintf("%s %s uuid CRYPT-LUKS2-%s-sealboot-root keys 0 left nothing udev known", marker, m.secret, strings.ReplaceAll(m.header.UUID(), "-", ""))

	ok := t.Run("good", func(t *testing.T) {
		console := m.boot(t, m.disk, keys, "panic=7 -- first second")
		wantLine(t, console, said+" panic 7 args first second")
		if strings.Contains(console, "receipt") {
			t.Errorf("a receipt came from nowhere:\n%s", last(console))
		}
	})
	if !ok {
		return
	}
	t.Run("receipt", func(t *testing.T) {
		console := m.boot(t, m.disk, withReceipt, "")
		wantLine(t, console, said+" panic 0 args")
		wantLine(t, console, want)
	})
	t.Run("distribution's initramfs", func(t *testing.T) {
		own := *m
		own.initramfs = append(m.distribution(t, "ext4"), m.initramfs...)
		console := own.boot(t, m.disk, withReceipt, "")
		wantLine(t, console, "distribution's init: panic=1,noresume=y, left conf,init")
		wantLine(t, console, said+" panic 0 args")
		wantLine(t, console, want)
	})
	for _, twin := range []struct {
		name  string
		disk  func(t *testing.T, disk *os.File)
		keys  []byte
		wants string
	}{
		{"CVE-2025-59054: null cipher", func(t *testing.T, disk *os.File) {
			m.editHeader(t, disk, func(json []byte) []byte {
				return bytes.ReplaceAll(json, []byte(`"encryption":"aes-xts-plain64"`), []byte(`"encryption":"cipher_null-ecb"`))
			})
		}, keys, "the disk's LUKS header is refused: vda1: "},
		{"no pin", nil, m.keys(m.passphrase, nil, nil, ""), "no header pin came from GRUB: "},
		{"partition cut short", func(t *testing.T, disk *os.File) {
			sgdisk := testtool.Program(t, "sgdisk")
			testtool.Output(t, sgdisk, "-d", "1", "-n", fmt.Sprintf("1:2048:+%dK", (dataOffset+fsSize/2)>>10), disk.Name())
		}, keys, "mount root: ext4: "},
	} {
		t.Run(twin.name, func(t *testing.T) {
			disk := filepath.Join(t.TempDir(), "disk.raw")
			content, err := os.ReadFile(m.disk)
			check(t, err)
			check(t, os.WriteFile(disk, content, 0o600))
			if twin.disk != nil {
				f, err := os.OpenFile(disk, os.O_RDWR, 0)
				check(t, err)
				twin.disk(t, f)
				check(t, f.Close())
			}
			console := m.boot(t, disk, twin.keys, "")
			if strings.Contains(console, marker) || strings.Contains(console, m.secret) {
				t.Errorf("the root ran:\n%s", last(console))
			}
			if strings.Count(console, "sealboot: stopped: ") != 1 {
				t.Errorf("not exactly one line says why:\n%s", last(console))
			}
			wantLine(t, console, "sealboot: stopped: "+twin.wants)
		})
	}
}

// wantLine looks for a line that begins so.
func wantLine(t *testing.T, console, begin string) {
	t.Helper()
	for line := range strings.Lines(console) {
		if strings.HasPrefix(line, begin) {
			return
		}
	}
	t.Errorf("no line begins with %q:\n%s", begin, last(console))
}

// editHeader changes the JSON of the header on the disk's partition.
func (m *realMachine) editHeader(t *testing.T, disk *os.File, edit func(json []byte) []byte) {
	t.Helper()
	header := make([]byte, dataOffset)
	_, err := disk.ReadAt(header, partitionStart)
	check(t, err)
	rewrite(t, header, edit)
	_, err = disk.WriteAt(header, partitionStart)
	check(t, err)
}

// distribution makes an initramfs as initramfs-tools would, that mounts a /run of its own and the opened root of that kind.
func (m *realMachine) distribution(t *testing.T, kind string, programs ...string) []byte {
	t.Helper()
	busybox, err := os.ReadFile(testtool.Program(t, "busybox"))
	check(t, err)
	var b bytes.Buffer
	for _, dir := range []string{"bin", "conf", "proc", "sys", "dev", "run", "root", "scripts", "scripts/init-top"} {
		member(&b, dir, 0o040755, nil)
	}
	member(&b, "bin/busybox", 0o100755, busybox)
	for _, name := range programs {
		content, err := os.ReadFile(name)
		check(t, err)
		member(&b, "bin/"+filepath.Base(name), 0o100755, content)
	}
	member(&b, "conf/initramfs.conf", 0o100644, nil)
	member(&b, "scripts/init-top/ORDER", 0o100644, []byte("echo udev starts\n"))
	member(&b, "init", 0o100755, []byte(`#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc proc /proc && $bb mount -t sysfs sysfs /sys && $bb mount -t devtmpfs dev /dev || exit
$bb mount -t tmpfs -o mode=0755 tmpfs /run || exit
mkdir() { $bb mkdir "$@"; }
cat() { $bb cat "$@"; }
. /scripts/init-top/ORDER
[ -x /bin/scan ] && /bin/scan
echo "distribution's init: $($bb cat /conf/conf.d/* | $bb tr '\n' ,) left $($bb ls / | $bb grep -e conf -e sealboot -e init | $bb tr '\n' ,)"
$bb mount -o ro -t `+kind+` /dev/mapper/sealboot-root /root || exit
for dir in proc sys dev run; do $bb mount -o move /$dir /root/$dir || exit; done
exec $bb switch_root /root /sbin/init
`))
	member(&b, "TRAILER!!!", 0, nil)
	return b.Bytes()
}

func newRealMachine(t *testing.T) *realMachine {
	t.Helper()
	m := &realMachine{dir: t.TempDir(), passphrase: randomBytes(t, 32), secret: fmt.Sprintf("%x", randomBytes(t, 16))}
	m.disk = filepath.Join(m.dir, "disk.raw")
	m.makeInitramfs(t)
	m.makeDisk(t)
	return m
}

// makeInitramfs takes a kernel, and makes the initramfs for it.
func (m *realMachine) makeInitramfs(t *testing.T, fileSystems ...string) {
	t.Helper()
	tree := filepath.Join(m.dir, "kernel")
	testtool.Output(t, testtool.Program(t, "dpkg-deb"), "-x", testtool.Deb(t, "linux-image-*-cloud-amd64"), tree)
	src, err := source.Open(tree)
	check(t, err)
	kernels, err := initramfs.Scan(t.Context(), src)
	check(t, err)
	if len(kernels) != 1 {
		t.Fatalf("kernels %v", kernels)
	}
	m.kernel = filepath.Join(tree, kernels[0].Image)
	m.initramfs, err = initramfs.Build(t.Context(), src, kernels[0], buildProgram(t, m.dir, "sealboot-agent"), fileSystems...)
	check(t, err)
}

func buildProgram(t *testing.T, dir, program string) []byte {
	t.Helper()
	name := filepath.Join(dir, program)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", name, "./cmd/"+program)
	cmd.Dir = testtool.Project()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", program, err, out)
	}
	content, err := os.ReadFile(name)
	check(t, err)
	return content
}

// makeDisk makes a disk whose payload is an ext4 root.
func (m *realMachine) makeDisk(t *testing.T) {
	t.Helper()
	root := filepath.Join(m.dir, "root")
	for _, dir := range []string{"bin", "sbin", "proc", "sys", "dev", "run", "etc"} {
		check(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	busybox, err := os.ReadFile(testtool.Program(t, "busybox"))
	check(t, err)
	check(t, os.WriteFile(filepath.Join(root, "bin/busybox"), busybox, 0o755))
	check(t, os.WriteFile(filepath.Join(root, "etc/secret"), []byte(m.secret+"\n"), 0o600))
	check(t, os.WriteFile(filepath.Join(root, "sbin/init"), []byte(initScript), 0o755))
	plain := filepath.Join(m.dir, "root.ext4")
	testtool.Output(t, testtool.Program(t, "mke2fs"), "-q", "-F", "-t", "ext4", "-b", "4096", "-d", root, plain, fmt.Sprintf("%dk", fsSize>>10))

	payload, err := os.ReadFile(plain)
	check(t, err)
	m.seal(t, payload, 0, 4096)
}

// seal makes a GPT disk whose only partition is LUKS2 over the payload, with room behind it.
func (m *realMachine) seal(t *testing.T, payload []byte, room int64, sector int) {
	t.Helper()
	header, key, err := luks.Format(luks.Spec{DataOffset: dataOffset, SectorSize: sector, KDF: luks.MinimalPBKDF2}, m.passphrase, rand.Reader)
	check(t, err)
	m.header = header
	encoded, err := header.Encode()
	check(t, err)
	cipher, err := luks.NewCipher(key, sector, 0)
	check(t, err)
	check(t, cipher.Encrypt(payload, payload, 0))
	size := int64(len(payload)) + room

	disk, err := os.Create(m.disk)
	check(t, err)
	defer disk.Close()
	check(t, disk.Truncate(partitionStart+dataOffset+size+(1<<20)))
	_, err = disk.WriteAt(encoded, partitionStart)
	check(t, err)
	_, err = disk.WriteAt(payload, partitionStart+dataOffset)
	check(t, err)
	testtool.Output(t, testtool.Program(t, "sgdisk"), "-n", fmt.Sprintf("1:2048:+%dK", (dataOffset+size)>>10), m.disk)
}

// initScript answers with the secret, the device's name, and what is left of keys and initramfs.
const initScript = `#!/bin/busybox sh
bb=/bin/busybox
left=$($bb find / -xdev -name header-pin -o -xdev -name passphrase -o -xdev -name "*agent*")
keys=$($bb grep -c sealboot /proc/keys)
table=$($bb cat /sys/block/dm-0/dm/uuid)
if $bb test -e /run/sealboot; then
	at=$($bb awk '$5 == "/run" { print $9 }' /proc/self/mountinfo)
	echo "receipt $($bb stat -c '%a %u:%g' /run/sealboot/receipt) in $($bb stat -c '%a %u:%g' /run/sealboot) on $at $($bb sha256sum </run/sealboot/receipt)"
fi
$bb test -e /run/udev/data/b$($bb cat /sys/block/dm-0/dev) && udev=known
echo "` + marker + ` $($bb cat /etc/secret) uuid $table keys $keys left ${left:-nothing} udev $udev panic $($bb cat /proc/sys/kernel/panic) args $*"
$bb poweroff -f
`

// keys makes the archive of key files, as GRUB's "newc:" does. A nil value is left out.
func (m *realMachine) keys(passphrase, pin, note []byte, used string) []byte {
	files := map[string][]byte{PassphraseFile: passphrase, PinFile: pin, UsedFile: []byte(used), ReceiptFile: note}
	var b bytes.Buffer
	member(&b, "sealboot/key", 0o040777, nil)
	for _, name := range []string{PassphraseFile, PinFile, UsedFile, ReceiptFile} {
		if files[name] != nil {
			member(&b, "sealboot/key/"+name, 0o100777, files[name])
		}
	}
	member(&b, "TRAILER!!!", 0, nil)
	return b.Bytes()
}

// member writes one member of a cpio archive.
func member(b *bytes.Buffer, name string, mode int, content []byte) {
	pad := func() {
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	fmt.Fprintf(b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", 0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	pad()
	b.Write(content)
	pad()
}

// boot starts the machine and gives all that its serial console said, once it is off. The host may have more disks for it.
func (m *realMachine) boot(t *testing.T, disk string, keys []byte, parameters string, more ...string) string {
	t.Helper()
	initrd := filepath.Join(t.TempDir(), "initrd")
	check(t, os.WriteFile(initrd, bytes.Join([][]byte{m.initramfs, keys}, nil), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	begun := time.Now()
	cmd := exec.CommandContext(ctx, testtool.Program(t, "qemu-system-x86_64"), "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", m.kernel, "-initrd", initrd,
		"-append", "console=ttyS0 root=/dev/mapper/sealboot-root rdinit=/sealboot/agent sealboot.disk="+m.header.UUID()+" ro "+parameters)
	for i, name := range append([]string{disk}, more...) {
		cmd.Args = append(cmd.Args, "-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,file=%s", i, name), "-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d", i))
	}
	var console bytes.Buffer
	cmd.Stdout, cmd.Stderr = &console, &console
	err := cmd.Run()
	t.Logf("powered off after %v", time.Since(begun).Round(10*time.Millisecond))
	if err != nil {
		t.Fatalf("QEMU: %v\n%s", err, last(console.String()))
	}
	return console.String()
}

// last gives the end of a console.
func last(console string) string {
	lines := strings.Split(console, "\n")
	return strings.Join(lines[max(0, len(lines)-25):], "\n")
}

func randomBytes(t *testing.T, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	_, err := io.ReadFull(rand.Reader, b)
	check(t, err)
	return b
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
