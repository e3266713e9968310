package atomicfile

import (
	"os"
	"path/filepath"
	"testing"
)

func TestWholeOrAbsent(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "out")
	f, err := Create(name, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("half")
	if _, err := os.Stat(name); err == nil {
		t.Error("the name exists before Commit")
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("Close left %v", left)
	}
	if err := WriteFile(name, []byte("whole"), 0o640); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(name); string(got) != "whole" {
		t.Errorf("read %q", got)
	}
	if info, _ := os.Stat(name); info.Mode().Perm() != 0o640 {
		t.Errorf("mode %v", info.Mode())
	}
}

// TestNothingBehind looks into the folder of an output under way, as a killed program would leave it.
func TestNothingBehind(t *testing.T) {
	dir := t.TempDir()
	if f, err := unnamed(filepath.Join(dir, "x")); err != nil {
		t.Skipf("no files without names here: %v", err)
	} else {
		f.Close()
	}
	f, err := Create(filepath.Join(dir, "out"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString("half"); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the folder has %v (%v)", left, err)
	}
}

// TestOverAnother replaces a file, with a temporary name from the beginning and without.
func TestOverAnother(t *testing.T) {
	for kind, create := range map[string]func(string, os.FileMode) (*File, error){"Create": Create, "createNamed": createNamed} {
		dir := t.TempDir()
		name := filepath.Join(dir, "out")
		for _, text := range []string{"first", "second"} {
			f, err := create(name, 0o640)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(text); err != nil {
				t.Fatal(err)
			}
			if err := f.Commit(); err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			if got, err := os.ReadFile(name); err != nil || string(got) != text {
				t.Errorf("%s: read %q, %v", kind, got, err)
			}
			if info, err := os.Stat(name); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("%s: %v, %v", kind, info.Mode(), err)
			}
			if err := f.Commit(); err == nil {
				t.Errorf("%s: Commit twice passed", kind)
			}
		}
		f, err := create(name, 0o640)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: Close: %v", kind, err)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("%s: the folder has %v (%v)", kind, left, err)
		}
	}
}

func TestRefusesLink(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(link, []byte("lost"), 0o600); err == nil {
		t.Error("wrote through a symbolic link")
	}
	if got, _ := os.ReadFile(target); string(got) != "kept" {
		t.Errorf("the link's target now holds %q", got)
	}
}
