package protofile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrite describes a small folder; what mkfs.xfs makes of larger ones is tested in image/xfs.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	for _, err := range []error{
		os.Chmod(dir, 0o755), os.MkdirAll(dir+"/a/b", 0o750), os.WriteFile(dir+"/a/b/file", nil, 0o640), os.Chmod(dir+"/a/b/file", 0o640|os.ModeSetuid),
		os.Symlink("a/b", dir+"/link"),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	owner := "0 0"
	if uid := os.Geteuid(); uid == 0 {
		owner = fmt.Sprint(uid, os.Getegid())
	}
	want := strings.ReplaceAll("/\n0 0\nd--755 OWNER\na d--750 OWNER\nb d--750 OWNER\nfile -u-640 OWNER "+dir+"/a/b/file\n$\n$\nlink l--777 OWNER a/b\n$\n", "OWNER", owner)
	var got strings.Builder
	if err := Write(&got, dir); err != nil || got.String() != want {
		t.Errorf("%q, %v, want %q", &got, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "two words"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(&got, dir); !errors.Is(err, ErrName) {
		t.Errorf("a name of two words: %v", err)
	}
}
