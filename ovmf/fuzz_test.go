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

func FuzzLint(f *testing.F) {
	f.Add(small(f), 0, false)
	f.Add(mustBundle(f, small(f), grubOf(goodObjects()...)), 64, true)
	f.Fuzz(func(t *testing.T, data []byte, size int, hashes bool) {
		r := Lint(data, LintOptions{SecretTableSize: size, KernelHashes: hashes})
		for _, finding := range r.Findings {
			if _, known := checks[finding.Check]; !known || finding.Level == Unfit && r.Fit {
				t.Fatalf("finding %+v, fit %t", finding, r.Fit)
			}
		}
		if _, err := Parse(data); err != nil && r.Fit {
			t.Fatal("fit, and no firmware")
		}
	})
}

func FuzzGRUB(f *testing.F) {
	f.Add(grubOf(goodObjects()...))
	f.Fuzz(func(t *testing.T, data []byte) {
		if checkEFIApplication(data) != nil {
			return
		}
		g, err := parseGRUB(data)
		if err != nil {
			if g != nil {
				t.Fatal("a GRUB and an error")
			}
			return
		}
		if len(g.modules)+len(g.others) > grubMaxObjects {
			t.Fatalf("%d modules", len(g.modules))
		}
		grubSettings(g.memdisk)
	})
}

func FuzzSettings(f *testing.F) {
	f.Add(settingsText)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseSettings(text)
		if err != nil {
			if s != nil {
				t.Fatal("settings and an error")
			}
			return
		}
		serial := "0"
		if s.Serial {
			serial = "1"
		}
		again, err := parseSettings("version='1'\ndisk_uuid='" + s.DiskUUID + "'\nappend='" + s.Append + "'\nserial='" + serial + "'\n")
		if err != nil || *again != *s {
			t.Fatalf("%+v became %+v, %v", s, again, err)
		}
	})
}

func FuzzVariables(f *testing.F) {
	store := appendErased(nil, 0x200)
	copy(store, authVariablesGUID[:])
	copy(store[16:], []byte{0, 2, 0, 0, storeFormatted, storeHealthy})
	f.Add(bytes.Clone(store))
	setVariable(store[storeHeader:], "Boot0000")
	f.Add(store)
	f.Fuzz(func(t *testing.T, data []byte) {
		v := &Volume{FileSystem: nvDataGUID, raw: data}
		list, _, err := variables(v)
		if err != nil {
			if list != nil {
				t.Fatal("variables and an error")
			}
			return
		}
		writesPending(v)
	})
}
