package image

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/sealboot/sealboot/image/gpt"
)

// TestRegions cuts a disk into parts that leave nothing out.
func TestRegions(t *testing.T) {
	image, made := small(t)
	for name, disk := range map[string][]byte{"qcow2": image, "raw": asRaw(t, image)} {
		r, err := Inspect(t.Context(), bytes.NewReader(disk), int64(len(disk)))
		if err != nil {
			t.Fatal(err)
		}
		if string(r.Format) != name || r.PayloadUsed < made.Written && name == "qcow2" {
			t.Errorf("%s: %+v", name, r)
		}
		at, kinds := int64(0), ""
		for _, region := range r.Regions {
			kinds += string(region.Kind) + " "
			if region.Used < 0 || region.Used > region.Size {
				t.Errorf("%s: %+v", name, region)
			}
			if region.Kind == HeaderRegion || region.Kind == DataRegion {
				continue
			}
			if region.Offset != at {
				t.Errorf("%s: %+v, want it at %d", name, region, at)
			}
			at += region.Size
		}
		if want := "partition_table free partition luks_header encrypted_data free partition_table "; kinds != want || at != r.DiskSize {
			t.Errorf("%s: %sup to %d, want %s", name, kinds, at, want)
		}
	}
}

// TestRegionsOfSeveral has partitions that are not in the table's order, and no room between some.
func TestRegionsOfSeveral(t *testing.T) {
	image, _ := small(t)
	d, err := Open(t.Context(), bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	d.Root.Offset, d.Root.Size = 3<<20, 20<<20
	d.Partitions = []gpt.Partition{{Name: "last", Offset: 30 << 20, Size: 1 << 20}, d.Root, {Name: "first", Offset: 1 << 20, Size: 2 << 20}}
	list, err := d.regions()
	if err != nil {
		t.Fatal(err)
	}
	names := ""
	for _, r := range list {
		names += string(r.Kind)[:2] + fmt.Sprint(r.Number) + r.Name + " "
	}
	if want := "pa0 fr0 pa3first pa2sealboot-root lu0 en0 fr0 pa1last fr0 pa0 "; names != want {
		t.Errorf("%q, want %q", names, want)
	}
}
