package ovmf

import (
	"bytes"
	"testing"
)

func FuzzParse(f *testing.F) {
	data := small(f)
	f.Add(data[len(data)-2048:])
	f.Fuzz(func(t *testing.T, data []byte) {
		img, err := Parse(data)
		if err != nil {
			if img != nil {
				t.Fatal("an image and an error")
			}
			return
		}
		// What was read says the same as the bytes: entries back to back up to the trailer.
		at := len(data) - tableEnd - entryHeader
		for _, e := range img.Entries() {
			at -= entryHeader
			if !bytes.Equal(data[at-len(e.Data):at], e.Data) || !bytes.Equal(data[at+2:at+entryHeader], e.GUID[:]) {
				t.Fatalf("entry %v is not what stands at %#x", e.GUID, at)
			}
			at -= len(e.Data)
		}
	})
}

func FuzzUnpack(f *testing.F) {
	f.Add(small(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		tree, err := Unpack(data)
		if err != nil {
			if tree != nil {
				t.Fatal("a tree and an error")
			}
			return
		}
		if out, err := tree.Pack(); err != nil || !bytes.Equal(out, data) {
			t.Fatalf("put together, the image has other bytes: %v", err)
		}
		if _, err := Inspect(data); err == nil {
			Bundle(data, efiApplication(0x400, 'g'))
		}
	})
}

// FuzzPacked fuzzes what is inside the packed section, past its packing.
func FuzzPacked(f *testing.F) {
	tree := mustUnpack(f, small(f))
	f.Add(tree.unpacked)
	for _, v := range tree.Packed() {
		resizeTo := *v
		resize(&resizeTo, 64)
		f.Add(encodeSections([]section{{kind: sectionVolumeImage, data: resizeTo.encode()}}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		sections, err := parseSections(data, "")
		if err != nil {
			return
		}
		if !bytes.Equal(encodeSections(sections), data) {
			t.Fatal("sections put together have other bytes")
		}
		for _, s := range sections {
			v, err := parseVolume(s.data, "")
			if err != nil {
				continue
			}
			if !bytes.Equal(v.encode(), s.data[:v.Size()]) {
				t.Fatal("a volume put together has other bytes")
			}
			for _, file := range v.Files {
				file.uiName()
				if changed, err := file.withApplication([]byte("x")); err == nil {
					if got, err := changed.application(); err != nil || string(got) != "x" {
						t.Fatalf("application comes out as %q, %v", got, err)
					}
				}
			}
		}
	})
}

func FuzzEFIApplication(f *testing.F) {
	f.Add(efiApplication(0x400, 'g'))
	f.Fuzz(func(t *testing.T, data []byte) {
		err := checkEFIApplication(data)
		if out, bundleErr := Bundle(small(t), data); err != nil && (bundleErr == nil || out != nil) {
			t.Fatalf("refused (%v) and bundled", err)
		}
	})
}

func FuzzLZMA(f *testing.F) {
	packed, err := packLZMA(bytes.Repeat([]byte("sealboot"), 100))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Add(mustPackSmall(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, err := unpackLZMA(data)
		if err != nil && out != nil || len(out) > maxUnpacked {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	})
}

// mustPackSmall gives the packed data of the small image.
func mustPackSmall(t testing.TB) []byte {
	tree := mustUnpack(t, small(t))
	_, _, _, data, ok := tree.outer[tree.packed].guided()
	if !ok {
		t.Fatal("no packed section")
	}
	return data
}
