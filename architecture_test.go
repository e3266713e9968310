package sealboot_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/sealboot/sealboot/"

// TestImportTable holds every package to the table in ARCHITECTURE.md.
func TestImportTable(t *testing.T) {
	table := readTable(t)
	used := map[string]bool{}
	files := 0
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path == "." {
				return nil
			}
			if name := d.Name(); name[0] == '.' || name == "testdata" || name == "bin" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil { // a module of its own: no package here may import it
				return filepath.SkipDir
			}
			return nil
		}
		folder := filepath.ToSlash(filepath.Dir(path))
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || folder == "." {
			return nil
		}
		files++
		row := table.row(folder)
		if row == "" {
			t.Errorf("%s: ARCHITECTURE.md's table has no row for %s", path, folder)
			return nil
		}
		used[row] = true
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			ours, ok := strings.CutPrefix(name, module)
			if ok && !within(ours, row) && !slices.ContainsFunc(table[row], func(allowed string) bool { return within(ours, allowed) }) {
				t.Errorf("%s imports %s, which the row of %s does not allow", path, ours, row)
			}
			if ours == "internal/testtool" {
				t.Errorf("%s imports %s outside a test", path, ours)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Errorf("only %d source files were looked at", files)
	}
	for row := range table {
		if !used[row] {
			t.Errorf("ARCHITECTURE.md lists %s, which holds no Go code", row)
		}
	}
}

// TestTableRefuses shows that the check can fail.
func TestTableRefuses(t *testing.T) {
	table := readTable(t)
	if row := table.row("keyserver/wire"); row != "keyserver" {
		t.Fatalf("the row of keyserver/wire is %q", row)
	}
	for _, forbidden := range []string{"image", "grub", "launch", "e2e/psp"} {
		if slices.ContainsFunc(table["keyserver"], func(allowed string) bool { return within(forbidden, allowed) }) {
			t.Errorf("keyserver may import %s", forbidden)
		}
	}
	if table.row("nowhere") != "" {
		t.Error("a folder that is not listed has a row")
	}
}

type importTable map[string][]string

// row gives the longest listed folder that holds the given one.
func (table importTable) row(folder string) string {
	best := ""
	for row := range table {
		if within(folder, row) && len(row) > len(best) {
			best = row
		}
	}
	return best
}

func within(folder, above string) bool {
	return folder == above || strings.HasPrefix(folder, above+"/")
}

func readTable(t *testing.T) importTable {
	t.Helper()
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := importTable{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		if !strings.HasPrefix(line, "|") || len(cells) != 3 {
			continue
		}
		folder := strings.TrimSpace(cells[0])
		if folder == "folder" || strings.HasPrefix(folder, "---") {
			continue
		}
		table[folder] = nil
		for name := range strings.SplitSeq(cells[2], ",") {
			if name = strings.TrimSpace(name); name != "–" {
				table[folder] = append(table[folder], name)
			}
		}
	}
	if len(table) < 10 {
		t.Fatalf("ARCHITECTURE.md's table has %d rows", len(table))
	}
	return table
}
