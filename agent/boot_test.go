package agent_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/agent"
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

// machine is what a boot needs: a Debian kernel with an initramfs that holds the agent, and a disk
// whose encrypted root answers with something that only it can know.
type machine struct {
	dir, kernel, disk string
	initramfs         []byte
	header            *luks.Header
	passphrase        []byte
	secret            string // in a file of the encrypted root
}

func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("boots virtual machines")
	}
	m := newMachine(t)
	good := m.header.Pin()
	t.Run("good", func(t *testing.T) {
		console := m.boot(t, m.disk, m.keys(m.passphrase, good[:]), "-- first second")
		want := fmt.Sprintf("%s %s uuid CRYPT-LUKS2-%s-sealboot-root keys 0 left nothing udev known args first second",
			marker, m.secret, strings.ReplaceAll(m.header.UUID(), "-", ""))
		if !strings.Contains(console, want) {
			t.Errorf("the console has no line %q:\n%s", want, console)
		}
	})
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	m := &machine{dir: t.TempDir(), passphrase: random(t, 32), secret: fmt.Sprintf("%x", random(t, 16))}
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
	m.initramfs, err = initramfs.Build(t.Context(), src, kernels[0], buildAgent(t, m.dir))
	check(t, err)
	m.disk = filepath.Join(m.dir, "disk.raw")
	m.makeDisk(t)
	return m
}

func buildAgent(t *testing.T, dir string) []byte {
	t.Helper()
	name := filepath.Join(dir, "sealboot-agent")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", name, "./cmd/sealboot-agent")
	cmd.Dir = testtool.Project()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build agent: %v\n%s", err, out)
	}
	program, err := os.ReadFile(name)
	check(t, err)
	return program
}

// makeDisk makes a GPT disk whose only partition is LUKS2 with 4096-byte sectors over ext4.
func (m *machine) makeDisk(t *testing.T) {
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

	header, key, err := luks.Format(luks.Spec{DataOffset: dataOffset, KDF: luks.MinimalPBKDF2}, m.passphrase, rand.Reader)
	check(t, err)
	m.header = header
	encoded, err := header.Encode()
	check(t, err)
	cipher, err := luks.NewCipher(key, header.Segment().SectorSize, 0)
	check(t, err)
	data, err := os.ReadFile(plain)
	check(t, err)
	check(t, cipher.Encrypt(data, data, 0))

	disk, err := os.Create(m.disk)
	check(t, err)
	defer disk.Close()
	check(t, disk.Truncate(partitionStart+dataOffset+fsSize+(1<<20)))
	_, err = disk.WriteAt(encoded, partitionStart)
	check(t, err)
	_, err = disk.WriteAt(data, partitionStart+dataOffset)
	check(t, err)
	testtool.Output(t, testtool.Program(t, "sgdisk"), "-n", fmt.Sprintf("1:2048:+%dK", (dataOffset+fsSize)>>10), m.disk)
}

// initScript answers with the secret, the device's name, and what is left of keys and initramfs.
const initScript = `#!/bin/busybox sh
bb=/bin/busybox
left=$($bb find / -xdev -name header-pin -o -xdev -name passphrase -o -xdev -name "*agent*")
keys=$($bb grep -c sealboot /proc/keys)
table=$($bb cat /sys/block/dm-0/dm/uuid)
$bb test -e /run/udev/data/b$($bb cat /sys/block/dm-0/dev) && udev=known
echo "` + marker + ` $($bb cat /etc/secret) uuid $table keys $keys left ${left:-nothing} udev $udev args $*"
$bb poweroff -f
`

// keys makes the archive of key files, as GRUB's "newc:" does. A nil value is left out.
func (m *machine) keys(passphrase, pin []byte) []byte {
	files := map[string][]byte{agent.PassphraseFile: passphrase, agent.PinFile: pin}
	var b bytes.Buffer
	member := func(name string, mode int, content []byte) {
		fmt.Fprintf(&b, "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00", 0, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(content)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	member("sealboot/key", 0o040777, nil)
	for _, name := range []string{agent.PassphraseFile, agent.PinFile} {
		if files[name] != nil {
			member("sealboot/key/"+name, 0o100777, files[name])
		}
	}
	member("TRAILER!!!", 0, nil)
	return b.Bytes()
}

// boot starts the machine and gives all that its serial console said, once it is off.
func (m *machine) boot(t *testing.T, disk string, keys []byte, append string) string {
	t.Helper()
	initrd := filepath.Join(t.TempDir(), "initrd")
	check(t, os.WriteFile(initrd, bytes.Join([][]byte{m.initramfs, keys}, nil), 0o600))
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	begun := time.Now()
	cmd := exec.CommandContext(ctx, testtool.Program(t, "qemu-system-x86_64"), "-machine", "q35,accel=tcg", "-cpu", "max", "-m", "512",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", m.kernel, "-initrd", initrd,
		"-append", "console=ttyS0 root=/dev/mapper/sealboot-root rdinit=/sealboot/agent sealboot.disk="+m.header.UUID()+" ro "+append,
		"-drive", "if=none,id=disk,format=raw,file="+disk, "-device", "virtio-blk-pci,drive=disk")
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

func random(t *testing.T, size int) []byte {
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
