package ext4

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// debugfsWrite has debugfs run commands that change an image.
func debugfsWrite(t testing.TB, image []byte, commands ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	path, script := filepath.Join(dir, "image"), filepath.Join(dir, "commands")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(script, []byte(strings.Join(commands, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, testtool.Program(t, "debugfs"), "-w", "-f", script, path)
	return must(os.ReadFile(path))
}

// repaired has e2fsck repair an image.
func repaired(t testing.TB, image []byte) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(path, image, 0o600); err != nil {
		t.Fatal(err)
	}
	testtool.Output(t, "sh", "-c", `"$0" -fy "$1" >&2; test $? -le 1`, testtool.Program(t, "e2fsck"), path)
	return must(os.ReadFile(path))
}

// contentBlocks are where a file's content is, as debugfs wants it.
func contentBlocks(t testing.TB, image []byte, path string) (list []string) {
	t.Helper()
	r := must(Open(readerAt(image), int64(len(image))))
	err := r.blockMap(must(r.find(path)), func(m mapping) error {
		for i := range m.blocks.count {
			if !m.metadata {
				list = append(list, fmt.Sprint(m.blocks.start+i))
			}
		}
		return nil
	})
	if err != nil || len(list) == 0 {
		t.Fatalf("%s has blocks %v, %v", path, list, err)
	}
	return list
}

// crashed makes a file system whose journal has four transactions for the 20 blocks of /file, the last of
// which is not whole: others revoke some blocks, and one has blocks that begin with the journal's magic number.
func crashed(t testing.TB, open string, args ...string) []byte {
	t.Helper()
	dir, with := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), noise(20<<10, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	image := made(t, dir, "4M", append([]string{"-t", "ext4", "-b", "1024", "-N", "64"}, args...)...)
	blocks := contentBlocks(t, image, "/file")
	save := func(name string, content []byte) string {
		path := filepath.Join(with, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	escaped := noise(3<<10, 4)
	for i := 0; i < len(escaped); i += 1024 {
		binary.BigEndian.PutUint32(escaped[i:], journalMagic)
	}
	some := func(from, to int) string { return strings.Join(blocks[from:to], ",") }
	return debugfsWrite(t, image, open,
		"jw -b "+some(0, 10)+" "+save("first", noise(10<<10, 2)),
		"jw -r "+some(3, 5),
		"jw -b "+some(4, 6)+" "+save("second", noise(2<<10, 3)),
		"jw -b "+some(12, 15)+" "+save("escaped", escaped),
		"jw -c -b "+some(16, 20)+" "+save("lost", noise(4<<10, 5)),
		"jc")
}

var journals = []struct {
	name, open string
	args       []string
}{
	{"plain", "jo", []string{"-O", "^metadata_csum,^64bit"}},
	{"64 bits", "jo", []string{"-O", "^metadata_csum"}},
	{"checksums", "jo -c", nil},
	{"checksums, 32 bits", "jo -c", []string{"-O", "^64bit"}},
	{"checksums, version 2", "jo -c -v 2", nil},
}

// TestReplay compares what the journal's replay leaves behind with what it does for e2fsck.
func TestReplay(t *testing.T) {
	for _, c := range journals {
		t.Run(c.name, func(t *testing.T) {
			image := crashed(t, c.open, c.args...)
			r := must(Open(readerAt(image), int64(len(image))))
			if _, err := r.Check(context.Background(), nil); !errors.Is(err, ErrUnclean) {
				t.Fatalf("not unclean: %v", err)
			}
			before := must(r.ReadFile("/file", 1<<20))
			e := edit(t, image)
			if n := e.Repairs().Transactions; n != 4 {
				t.Errorf("%d transactions", n)
			}
			got := must(e.ReadFile("/file", 1<<20))
			want := repaired(t, image)
			wanted := must(must(Open(readerAt(want), int64(len(want)))).ReadFile("/file", 1<<20))
			if !bytes.Equal(got, wanted) || bytes.Equal(got, before) {
				for i := 0; i < len(got); i += 1024 {
					t.Logf("block %d: equal to e2fsck's %v, unchanged %v", i/1024, bytes.Equal(got[i:i+1024], wanted[i:i+1024]), bytes.Equal(got[i:i+1024], before[i:i+1024]))
				}
				t.Error("not what e2fsck replays")
			}
			// All but the superblock, with its times and counters, is the same as with e2fsck: the journal, too.
			after := make([]byte, len(image))
			if _, err := e.ReadAt(after, 0); err != nil {
				t.Fatal(err)
			}
			var others []int
			for at := 0; at < len(after); at += 1024 {
				if !bytes.Equal(after[at:at+1024], want[at:at+1024]) {
					others = append(others, at/1024)
				}
			}
			if !slices.Equal(others, []int{superOffset / 1024}) {
				t.Errorf("blocks %v are not as e2fsck leaves them", others)
			}
			put(t, e, regular("/new", "new"))
			edited(t, e, len(image))
		})
	}
}

// TestReplayRefused spoils one thing in a journal that is replayed otherwise.
func TestReplayRefused(t *testing.T) {
	good := crashed(t, "jo -c")
	edit(t, good)
	r := must(Open(readerAt(good), int64(len(good))))
	be := binary.BigEndian
	journal := must(r.openJournal(must(r.readInode(journalInode))))
	first := int64(journal.runs[0].start) * 1024
	super := func(at int, value uint32) func(image []byte) {
		return func(image []byte) {
			j := *journal
			j.super = image[first:][:1024]
			be.PutUint32(j.super[at:], value)
			be.PutUint32(j.super[journalCsum:], j.checksum())
		}
	}
	flip := func(place int) func(image []byte) {
		return func(image []byte) {
			at := uint64(place)
			for _, run := range journal.runs {
				if at < run.count {
					image[(run.start+at)*1024+500] ^= 1
					return
				}
				at -= run.count
			}
			t.Fatalf("no block %d in the journal", place)
		}
	}
	for name, c := range map[string]struct {
		spoil   func(image []byte)
		problem string
	}{
		"descriptor":           {flip(1), "checksum"},
		"content":              {flip(2), "content with checksum"},
		"commit":               {flip(12), "commit with checksum"},
		"revocation":           {flip(13), "checksum"},
		"superblock":           {flip(0), "journal superblock"},
		"error":                {super(journalErrno, 5), "notes an error"},
		"fast commits":         {super(journalIncompat, journalCsumV3|journalRevokes|journal64Bit|0x20), "fast_commit"},
		"asynchronous commits": {super(journalIncompat, journalCsumV3|journalRevokes|journal64Bit|0x4), "journal_async_commit"},
		"start":                {super(journalStart, 1<<20), "log from"},
		"first":                {super(journalFirst, 0), "log from"},
		"no journal": {func(image []byte) {
			s := must(decodeSuperblock(image[superOffset:][:superSize]))
			s.FeatureCompat &^= compatJournal
			copy(image[superOffset:], s.encode())
		}, "there is none"},
	} {
		image := bytes.Clone(good)
		c.spoil(image)
		_, err := NewEditor(readerAt(image), int64(len(image)), EditOptions{Time: editTime})
		if err == nil || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v", name, err)
		}
		if format := (*FormatError)(nil); !errors.Is(err, ErrUnclean) && !errors.As(err, &format) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOrphans has files that were deleted or cut short while open.
func TestOrphans(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"deleted", "short", "kept"} {
		if err := os.WriteFile(filepath.Join(dir, name), noise(100<<10, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"-b", "1024"}, {"-b", "1024", "-O", "^extent,^64bit"}, {"-b", "4096", "-O", "orphan_file"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			image := made(t, dir, "16M", append([]string{"-t", "ext4"}, args...)...)
			r := must(Open(readerAt(image), int64(len(image))))
			deleted, short := must(r.find("/deleted")).number, must(r.find("/short")).number
			image = debugfsWrite(t, image, "unlink /deleted",
				fmt.Sprintf("sif <%d> links_count 0", deleted), fmt.Sprintf("sif <%d> dtime %d", deleted, short),
				fmt.Sprintf("sif <%d> size 5000", short), fmt.Sprintf("sif <%d> dtime 0", short),
				fmt.Sprintf("ssv last_orphan %d", deleted))
			if args[len(args)-1] == "orphan_file" {
				inOrphanFile(t, image, deleted, short)
			}
			if want := repaired(t, image); must(Open(readerAt(want), int64(len(want)))).super.LastOrphan != 0 {
				t.Fatal("e2fsck left the list")
			}
			e := edit(t, image)
			if n := e.Repairs().Orphans; n != 2 {
				t.Errorf("%d orphans", n)
			}
			if got, err := e.ReadFile("/short", 1<<20); err != nil || !bytes.Equal(got, noise(100<<10, 1)[:5000]) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			edited(t, e, len(image))
		})
	}
}

// inOrphanFile moves the list of orphans from the superblock into the orphan file.
func inOrphanFile(t testing.TB, image []byte, numbers ...uint32) {
	t.Helper()
	r := must(Open(readerAt(image), int64(len(image))))
	r.super.LastOrphan = 0
	r.super.FeatureROCompat |= roOrphanPresent
	copy(image[superOffset:], r.super.encode())
	for _, number := range numbers {
		block, at := r.inodePlace(number)
		raw := image[block*4096+uint64(at):][:r.inodeSize]
		put32(raw, 0x14, 0)
		crc := inodeChecksum(inodeSeed(r.seed, number, le.Uint32(raw[0x64:])), raw)
		put16(raw, inodeCsumLo, uint16(crc))
		put16(raw, inodeCsumHi, uint16(crc>>16))
	}
	n := must(r.readInode(r.super.OrphanFileInum))
	err := r.blockMap(n, func(m mapping) error {
		raw := image[m.blocks.start*4096:][:4096]
		for i, number := range numbers {
			put32(raw, 40*i, number)
		}
		numbers = nil
		put32(raw, 4092, crc32c(crc32c(n.seed, le.AppendUint64(nil, m.blocks.start)), raw[:4088]))
		return nil
	})
	if err != nil || numbers != nil {
		t.Fatal(err)
	}
}

func TestOrphansRefused(t *testing.T) {
	image := made(t, populated(t), "24M", "-t", "ext4", "-b", "4096")
	for name, list := range map[string]string{"loop": "dtime 12", "never used": "dtime 5000", "reserved": "dtime 8"} {
		spoiled := debugfsWrite(t, image, "sif <12> links_count 1", "sif <12> "+list, "ssv last_orphan 12")
		_, err := NewEditor(readerAt(spoiled), int64(len(spoiled)), EditOptions{Time: editTime})
		var format *FormatError
		if !errors.As(err, &format) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, command := range map[string]string{"errors": "ssv state 2", "not clean": "ssv state 0"} {
		spoiled := debugfsWrite(t, image, command)
		if _, err := NewEditor(readerAt(spoiled), int64(len(spoiled)), EditOptions{Time: editTime}); !errors.Is(err, ErrUnclean) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplayWraps moves the log so that it goes on at the journal's beginning, at every block of it.
func TestReplayWraps(t *testing.T) {
	good := crashed(t, "jo -c")
	want := must(edit(t, good).ReadFile("/file", 1<<20))
	r := must(Open(readerAt(good), int64(len(good))))
	journal := must(r.openJournal(must(r.readInode(journalInode))))
	var places []uint64 // of the journal's blocks
	for _, run := range journal.runs {
		for i := range run.count {
			places = append(places, (run.start+i)*1024)
		}
	}
	be := binary.BigEndian
	first, start := int(be.Uint32(journal.super[journalFirst:])), int(be.Uint32(journal.super[journalStart:]))
	ring := int(journal.total) - first
	const logged = 27 // blocks that the log has at most
	for before := range logged {
		image := bytes.Clone(good)
		shift := ring - (start - first) - before // so many of its blocks are before the end
		for i := range logged {
			from, to := places[first+(start-first+i)%ring], places[first+(start-first+i+shift)%ring]
			copy(image[to:to+1024], good[from:from+1024])
		}
		j := *journal
		j.super = image[places[0]:][:1024]
		be.PutUint32(j.super[journalStart:], uint32(first+(start-first+shift)%ring))
		be.PutUint32(j.super[journalCsum:], j.checksum())
		e := edit(t, image)
		if got := must(e.ReadFile("/file", 1<<20)); !bytes.Equal(got, want) || e.Repairs().Transactions != 4 {
			t.Errorf("%d blocks before the end: %+v", before, e.Repairs())
		}
		if before%9 == 5 {
			wanted := repaired(t, image)
			if got := must(must(Open(readerAt(wanted), int64(len(wanted)))).ReadFile("/file", 1<<20)); !bytes.Equal(got, want) {
				t.Errorf("%d blocks before the end: e2fsck replays something else", before)
			}
		}
	}
}
