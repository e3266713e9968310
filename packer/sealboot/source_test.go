package sealboot

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestChoose(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, at int, magic string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, append(make([]byte, at), magic...), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	variables := write("efivars.fd", 540<<10, "")
	empty := write("empty", 0, "")
	checked := 0
	for _, s := range signatures {
		image := write("image", s.at, s.magic)
		if got, err := choose("", []string{variables, image, empty}); err != nil || got != image {
			t.Errorf("signature at %d: %q, %v", s.at, got, err)
		}
		checked++
	}
	if checked < 5 {
		t.Errorf("only %d signatures", checked)
	}
	image, second := write("image", 0, "QFI\xfb"), write("image-1", 510, "\x55\xaa")
	for _, c := range []struct {
		name, source string
		files        []string
		want, says   string
	}{
		{"the only file", "", []string{variables}, variables, ""},
		{"two images", "", []string{image, second}, "", "several"},
		{"two images, one named", "image-1", []string{image, second}, second, ""},
		{"another path", "/srv/root.tar", []string{image}, "/srv/root.tar", ""},
		{"no image", "", []string{variables, empty}, "", "none of the artifact's files"},
		{"a folder", "", []string{dir, variables}, "", "none of the artifact's files"},
		{"no files", "", nil, "", "the artifact has no files"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := choose(c.source, c.files)
			if got != c.want || (err != nil) != (c.says != "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%q, %v; want %q, %q", got, err, c.want, c.says)
			}
		})
	}
	if _, err := choose("", []string{image, filepath.Join(dir, "gone")}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is gone: %v", err)
	}
}
