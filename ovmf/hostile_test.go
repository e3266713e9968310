package ovmf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// mostMemory is what a malformed image may cost a process, all in all.
const mostMemory = 64 << 20

// TestMain runs one command where TestHostileMemory asks for it, and prints its exit code and what it took at most. It stands
// between, because a process's figure begins with that of the process that started it.
func TestMain(m *testing.M) {
	if os.Getenv("SEALBOOT_TEST_RUN") == "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Run()
	fmt.Println(cmd.ProcessState.ExitCode(), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss)
}

// inFront gives the small image behind other bytes, and erased ones in front, 16 MiB in all.
func inFront(t testing.TB, b []byte) []byte {
	firmware := small(t)
	return append(append(b[:len(b):len(b)], appendErased(nil, MaxSize-len(b)-len(firmware))...), firmware...)
}

// packing gives the small image with something else in its packed section.
func packing(t testing.TB, unpacked []byte) []byte {
	t.Helper()
	tree := mustUnpack(t, small(t))
	main, err := tree.repacked(unpacked, packLZMA)
	if err != nil {
		t.Fatal(err)
	}
	tree.parts[tree.mainPart].volume = main
	var out []byte
	for _, p := range tree.parts {
		out = append(out, p.volume.encode()...)
	}
	return out
}

// volumeOf makes a volume of files around b.
func volumeOf(b []byte) []byte {
	head := make([]byte, 72)
	copy(head[16:], ffs2GUID[:])
	size := align(len(head)+len(b), 8)
	binary.LittleEndian.PutUint64(head[32:], uint64(size))
	copy(head[40:], "_FVH")
	binary.LittleEndian.PutUint32(head[44:], erasePolarity)
	binary.LittleEndian.PutUint16(head[48:], uint16(len(head)))
	head[55] = 2
	binary.LittleEndian.PutUint16(head[50:], -sum16(head))
	return appendErased(append(head, b...), size-len(head)-len(b))
}

func sectionsOf(kind byte, b []byte) []byte { return encodeSections([]section{{kind, b}}) }

// hostile are images that try to cost more than they are worth: all 16 MiB of entries as small as can be.
func hostile(t testing.TB) map[string][]byte {
	const most = maxUnpacked - 4096
	empty := (&File{GUID: padGUID, Type: filePad}).append(nil)
	images := map[string][]byte{
		"files":            inFront(t, volumeOf(bytes.Repeat(empty, 500_000))),
		"volumes":          inFront(t, bytes.Repeat(volumeOf(nil), 150_000)),
		"packed files":     packing(t, sectionsOf(sectionVolumeImage, volumeOf(bytes.Repeat(empty, most/24)))),
		"packed volumes":   packing(t, bytes.Repeat(sectionsOf(sectionVolumeImage, volumeOf(nil)), most/76)),
		"packed sections":  packing(t, bytes.Repeat(sectionsOf(0x19, nil), most/4)),
		"packed zeros":     packing(t, make([]byte, maxUnpacked)),
		"packed emptiness": packing(t, sectionsOf(0x19, make([]byte, maxUnpacked-8))),
	}
	images["largest"] = append(appendErased(nil, MaxSize-len(images["packed emptiness"])), images["packed emptiness"]...)

	// A table that says that a million sections of metadata stand before it.
	b := inFront(t, nil)
	img, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	data, _ := img.find(MetadataGUID)
	const count = 1_000_000
	binary.LittleEndian.PutUint32(data, MaxSize-4096)
	copy(b[4096:], "ASEV")
	binary.LittleEndian.PutUint32(b[4100:], metadataHeader+metadataSection*count)
	binary.LittleEndian.PutUint32(b[4104:], 1)
	binary.LittleEndian.PutUint32(b[4108:], count)
	images["metadata"] = b

	// A GRUB of nothing but objects.
	objects := make([]object, 100_000)
	for i := range objects {
		objects[i].kind = 9
	}
	tree := mustUnpack(t, small(t))
	v, old := tree.grub()
	file, err := old.withApplication(grubOf(objects...))
	if err != nil {
		t.Fatal(err)
	}
	resize(v, 4<<20)
	if err := v.replaceLast(old, file); err != nil {
		t.Fatal(err)
	}
	images["objects"] = mustPack(t, tree)
	return images
}

// TestHostile: each is unfit, and what is wrong has a place.
func TestHostile(t *testing.T) {
	n := 0
	for name, b := range hostile(t) {
		r := Lint(b, LintOptions{})
		found := r.Findings[len(r.Findings)-1]
		if r.Fit || name != "packed emptiness" && name != "largest" && (found.Where == "" || found.Offset == nil) {
			t.Errorf("%s: %+v", name, found)
		}
		n++
	}
	if n < 10 {
		t.Errorf("only %d images", n)
	}
}

// TestHostileMemory measures what whole commands take at most, code and runtime counted.
// What bounds it: an image has at most 16 MiB, its packed section's contents 16 MiB, the dictionary for
// unpacking no more than these, and everything that is counted (volumes, files, sections) a limit.
func TestHostileMemory(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "sealboot")
	testtool.Output(t, "go", "build", "-o", program, "../cmd/sealboot")
	record, digest := filepath.Join(dir, "record.json"), strings.Repeat("11", 48)
	good := filepath.Join(dir, "good.fd")
	if err := os.WriteFile(good, amdSev(t), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, program, "measure", "--mode", "sev", "--ovmf", good, "--record", record,
		"--disk-uuid", "c0ffee00-84f0-4973-92ec-06879ce3da0b", "--header-pin", strings.Repeat("11", 32))
	images := hostile(t)
	images["distribution's"] = amdSev(t)
	for name, b := range images {
		file := filepath.Join(dir, "image")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{
			{"ovmf", "lint", file}, {"ovmf", "inspect", "--json", file}, {"ovmf", "bundle", "--firmware", file, "--grub", "testdata/application.efi", "--output", filepath.Join(dir, "out")},
			{"measure", "--mode", "sev", "--ovmf", file}, {"measure", "--mode", "snp", "--vcpus", "1-64", "--vcpu-type", "EPYC-v4", "--profiles", "all", "--ovmf", file},
			{"measure", "--mode", "snp:svsm", "--vcpus", "2", "--vcpu-type", "EPYC-v4", "--ovmf", good, "--vars-size", "4096", "--svsm", file},
			{"explain", "--record", record, "--firmware", file, "--digest", digest},
			{"explain", "--record", record, "--firmware", good, "--svsm", file, "--digest", digest},
		} {
			if args[1] == "bundle" && name == "distribution's" { // it packs again, which takes more
				continue
			}
			cmd := exec.Command(os.Args[0], append([]string{program}, args...)...)
			cmd.Env = append(os.Environ(), "SEALBOOT_TEST_RUN=1")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			var code, kib int
			if _, err := fmt.Sscan(string(out), &code, &kib); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
			t.Logf("%s: %s %s: %d MiB, exit code %d", name, args[0], args[1], kib>>10, code)
			if kib<<10 > mostMemory {
				t.Errorf("%s: %q takes %d MiB", name, args, kib>>10)
			}
			if code != 0 && code != 1 && code != 3 {
				t.Errorf("%s: %q: exit code %d", name, args, code)
			}
		}
	}
}
