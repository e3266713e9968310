package ext4

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/image/source"
)

// TestVariants changes a good image to what is as good, though the writer makes no such thing.
func TestVariants(t *testing.T) {
	good := spoilable(t)
	image := bytes.Clone(good)
	for name, c := range map[string]struct {
		change func(s *spoiler)
		look   func(t *testing.T, r *Reader)
	}{
		"unwritten extent": {
			func(s *spoiler) {
				s.file("/blocks", func(raw []byte) { put16(raw, 0x28+16, le.Uint16(raw[0x28+16:])+extentMaxLen) })
			},
			func(t *testing.T, r *Reader) {
				if got, err := r.ReadFile("/blocks", 1<<20); err != nil || !bytes.Equal(got, make([]byte, 100001)) {
					t.Errorf("it reads as %d bytes, %v", len(got), err)
				}
			},
		},
		"sectors as blocks": {
			func(s *spoiler) {
				s.file("/blocks", func(raw []byte) {
					put32(raw, 0x1c, le.Uint32(raw[0x1c:])/8)
					put32(raw, 0x20, inodeExtents|inodeHugeFile)
				})
			},
			func(*testing.T, *Reader) {},
		},
		"socket": {
			func(s *spoiler) {
				s.file("/fifo", func(raw []byte) { put16(raw, 0, modeSocket|0o600) })
				s.leaf("/", 0, func(b []byte) { s.entry(b, "fifo")[7] = kindSocket })
			},
			func(t *testing.T, r *Reader) {
				found := map[string]bool{}
				err := r.Walk(context.Background(), func(e source.Entry, _ io.Reader) error {
					found[e.Path] = true
					return nil
				})
				if err != nil || found["/fifo"] || !found["/block"] {
					t.Errorf("the walk found %v, %v", found, err)
				}
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			copy(image, good)
			c.change(&spoiler{t, image, must(Open(readerAt(good), int64(len(good))))})
			r := must(Open(readerAt(image), int64(len(image))))
			if _, err := r.Check(context.Background(), nil); err != nil {
				t.Fatal(err)
			}
			c.look(t, r)
		})
	}
}

// TestUnclean has what a crash leaves behind.
func TestUnclean(t *testing.T) {
	good := spoilable(t)
	image := bytes.Clone(good)
	for name, change := range map[string]func(*superblock){
		"needs recovery": func(s *superblock) { s.FeatureIncompat |= incompatRecover },
		"mounted":        func(s *superblock) { s.State = 0 },
		"errors":         func(s *superblock) { s.State |= stateError },
		"orphans":        func(s *superblock) { s.LastOrphan = 12 },
		"orphan file":    func(s *superblock) { s.FeatureROCompat |= roOrphanPresent },
	} {
		copy(image, good)
		s := &spoiler{t, image, must(Open(readerAt(good), int64(len(good))))}
		s.super(change)
		r, err := Open(readerAt(image), int64(len(image)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if _, err := r.Check(context.Background(), nil); !errors.Is(err, ErrUnclean) {
			t.Errorf("%s: checked as %v", name, err)
		}
		if err := r.Allocated(func(int64, int64) error { return nil }); !errors.Is(err, ErrUnclean) {
			t.Errorf("%s: allocated as %v", name, err)
		}
		if err := r.Walk(context.Background(), nil); !errors.Is(err, ErrUnclean) {
			t.Errorf("%s: walked as %v", name, err)
		}
	}
}

func TestNotExt4(t *testing.T) {
	good := spoilable(t)
	for name, image := range map[string][]byte{"empty": {}, "short": good[:2047], "noise": noise(1<<20, 1), "zeros": make([]byte, 1<<20)} {
		if _, err := Open(readerAt(image), int64(len(image))); !errors.Is(err, ErrNotExt4) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var format *FormatError
	if _, err := Open(readerAt(good[:8<<20]), 8<<20); !errors.As(err, &format) {
		t.Errorf("half of an image: %v", err)
	}
	if _, err := Open(readerAt(good[:1<<20]), int64(len(good))); err != nil {
		t.Errorf("the beginning of an image: %v", err)
	}
}

// TestUnchecked reads images that no check has looked at: what is followed is checked where it is followed.
func TestUnchecked(t *testing.T) {
	good := spoilable(t)
	image := bytes.Clone(good)
	for name, c := range map[string]struct {
		problem string
		spoil   func(s *spoiler)
	}{
		"no inode":     {"does not exist", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(s.entry(b, "owned"), 0, 1<<31) }) }},
		"unused inode": {"never used", func(s *spoiler) { s.leaf("/home", 0, func(b []byte) { put32(s.entry(b, "owned"), 0, 1000) }) }},
		"folder larger than all": {"larger than", func(s *spoiler) {
			s.file("/home", func(raw []byte) { put32(raw, 0x6c, 1) })
		}},
		"folder with a hole": {"hole", func(s *spoiler) {
			s.file("/home", func(raw []byte) { put32(raw, 0x28+12, 1) })
		}},
		"folder too large": {"folder of 8192 bytes", func(s *spoiler) {
			s.file("/home", func(raw []byte) { put32(raw, 4, 8192) })
		}},
		"blocks in a circle": {"tree larger", func(s *spoiler) {
			const a, b, c = 4090, 4091, 4092 // not in use
			for i := 0; i < blockSize; i += 4 {
				put32(s.bytes(a), i, b)
				put32(s.bytes(b), i, c)
				put32(s.bytes(c), i, 0)
			}
			s.file("/home/owned", func(raw []byte) {
				put32(raw, 0x20, 0)
				clear(raw[0x28:0x64])
				put32(raw, 0x28+4*(indirectDouble+1), a)
			})
		}},
	} {
		copy(image, good)
		c.spoil(&spoiler{t, image, must(Open(readerAt(good), int64(len(good))))})
		r := must(Open(readerAt(image), int64(len(image))))
		var format *FormatError
		if _, err := r.ReadFile("/home/owned", 1<<20); !errors.As(err, &format) || !strings.Contains(err.Error(), c.problem) {
			t.Errorf("%s: %v", name, err)
		}
	}
	r := must(Open(readerAt(good), int64(len(good))))
	var format *FormatError
	if err := r.readBlocks(make([]byte, 2*blockSize), r.blocks-1); !errors.As(err, &format) {
		t.Errorf("a block behind the end: %v", err)
	}
	if _, err := r.ReadFile("/home/owned", 100); err != nil {
		t.Error(err)
	}
	if err := r.parseFolder(must(r.find("/home")), 1, must(r.find("/home")).leaf(r), indexKind, func(folderEntry) error { return nil }); !errors.As(err, &format) {
		t.Errorf("entries in a hash tree's block: %v", err)
	}
	cut := must(Open(readerAt(good[:1<<20]), int64(len(good)))) // a device that ends early
	if _, err := cut.Check(context.Background(), nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a device that ends early: %v", err)
	}
}

// leaf is a folder's first block without its dots.
func (n *record) leaf(r *Reader) []byte {
	raw := make([]byte, blockSize)
	if err := r.readBlocks(raw, must(r.folderBlocks(n))[0]); err != nil {
		panic(err)
	}
	return append(raw[24:], make([]byte, 24)...)
}

// TestParseXattrs cuts attributes off at each byte, and has one twice.
func TestParseXattrs(t *testing.T) {
	good := make([]byte, 96)
	putXattrs(good, 0, []xattr{{1, "name", []byte("value")}, {6, "capability", noise(20, 1)}}, false)
	if list, _, err := parseXattrs(good, 0); err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for n := range good {
		if list, _, err := parseXattrs(good[:n:n], 0); err == nil {
			t.Errorf("cut to %d bytes: %v", n, list)
		}
	}
	n := &record{number: 12, inside: le.AppendUint32(nil, xattrMagic)}
	n.inside = append(n.inside, make([]byte, 96)...)
	putXattrs(n.inside[4:], 0, []xattr{{1, "name", []byte("value")}, {1, "name", []byte("other")}}, false)
	var format *FormatError
	if list, err := new(Reader).readXattrs(n); !errors.As(err, &format) {
		t.Errorf("an attribute twice: %v, %v", list, err)
	}
}
