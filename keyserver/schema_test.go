package keyserver

import (
	"slices"
	"testing"
)

// TestSameMigrations holds the databases' steps to one list of names.
func TestSameMigrations(t *testing.T) {
	names := make(map[string][]string)
	for _, d := range []*dialect{sqliteDialect, postgresDialect} {
		steps, err := d.migrations()
		must(t, err)
		files, err := schema.ReadDir("schema/" + d.name)
		must(t, err)
		if len(steps) == 0 || len(steps) != len(files) {
			t.Fatalf("%s has %d steps in %d files", d.name, len(steps), len(files))
		}
		for _, f := range files {
			names[d.name] = append(names[d.name], f.Name())
		}
	}
	if !slices.Equal(names["sqlite"], names["postgres"]) {
		t.Errorf("steps differ: %v", names)
	}
}
