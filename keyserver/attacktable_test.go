package keyserver

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestAttackTable looks for each test that ATTACKS.md names.
func TestAttackTable(t *testing.T) {
	text, err := os.ReadFile("ATTACKS.md")
	must(t, err)
	tests := make(map[string]bool)
	for _, pattern := range []string{"*_test.go", "*/*_test.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			source, err := os.ReadFile(file)
			must(t, err)
			for _, found := range regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)\w+)\(`).FindAllSubmatch(source, -1) {
				tests[string(found[1])] = true
			}
		}
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		named := regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w+`).FindAllString(line, -1)
		if !strings.HasPrefix(line, "| ") || strings.HasPrefix(line, "| attack") {
			continue
		}
		if rows++; len(named) == 0 {
			t.Errorf("no test is named: %s", line)
		}
		for _, name := range named {
			if !tests[name] {
				t.Errorf("there is no %s", name)
			}
		}
	}
	if rows < 20 {
		t.Errorf("%d attacks are listed", rows)
	}
}
