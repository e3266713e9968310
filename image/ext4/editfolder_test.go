package ext4

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// TestEditLargeFolder fills a folder until its tree has nodes, and empties it.
func TestEditLargeFolder(t *testing.T) {
	for _, args := range [][]string{
		{"-b", "1024", "-O", "large_dir"}, {"-b", "4096"}, {"-b", "1024", "-O", "^metadata_csum"}, {"-b", "1024", "-O", "^dir_index"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			count := 10000
			if args[len(args)-1] == "^dir_index" {
				count = 1500
			}
			image := made(t, "", "40M", append([]string{"-t", "ext4", "-N", "12000"}, args...)...)
			e := edit(t, image)
			for i := range count {
				put(t, e, regular(fmt.Sprintf("/many/%s-%d", long("name", 30), i), ""))
			}
			if names, err := e.ReadDir("/many"); err != nil || len(names) != count {
				t.Fatalf("%d names, %v", len(names), err)
			}
			path, _ := edited(t, e, len(image))
			if out := debugfs(t, path, fmt.Sprintf("stat /many/%s-%d", long("name", 30), count-1)); !strings.Contains(out, "Type: regular") {
				t.Error(out)
			}
			for i := range count {
				if i%7 != 0 {
					if err := e.Remove(fmt.Sprintf("/many/%s-%d", long("name", 30), i)); err != nil {
						t.Fatal(err)
					}
				}
			}
			edited(t, e, len(image))
		})
	}
}

// TestEditManyFolders has a folder with as many folders as can be counted (dir_nlink).
func TestEditManyFolders(t *testing.T) {
	image := debugfsWrite(t, made(t, populated(t), "24M", "-t", "ext4"), fmt.Sprintf("sif /many links_count %d", linkMax-2))
	e := edit(t, image)
	for i, want := range []uint16{linkMax - 1, 1, 1} {
		put(t, e, folder(fmt.Sprintf("/many/folder-%d", i)))
		if got := must(e.find("/many")).links; got != want {
			t.Errorf("%d links, not %d", got, want)
		}
	}
	if err := e.Remove("/many/folder-0"); err != nil {
		t.Error(err)
	}
	if got := must(e.find("/many")).links; got != 1 {
		t.Errorf("%d links", got)
	}
	e = edit(t, debugfsWrite(t, image, "feature ^dir_nlink", fmt.Sprintf("sif /many links_count %d", linkMax)))
	if err := e.Put(folder("/many/folder").Entry, nil); !errors.Is(err, ErrTree) {
		t.Error(err)
	}
	e = edit(t, debugfsWrite(t, image, fmt.Sprintf("sif /small links_count %d", linkMax)))
	if err := e.Put(hardLink("/other", "/small").Entry, nil); !errors.Is(err, ErrTree) {
		t.Error(err)
	}
}
