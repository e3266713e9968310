package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/testtool"
)

// TestMeasureTakesTheFlagsOfSevSnpMeasure runs the command with every recorded command line of
// sev-snp-measure (measure/testdata) and expects what that printed, and a failure where it failed.
func TestMeasureTakesTheFlagsOfSevSnpMeasure(t *testing.T) {
	t.Chdir(filepath.Join(testtool.Project(), "measure", "testdata"))
	ran := 0
	for _, file := range []string{"measure.json", "measure-more.json", "measure-svsm.json"} {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var recorded struct {
			Cases []struct {
				Args []string
				RC   int
				Out  string
			}
		}
		if err := json.Unmarshal(raw, &recorded); err != nil {
			t.Fatal(err)
		}
		for _, c := range recorded.Cases {
			var out, errs bytes.Buffer
			code := run(t.Context(), slices.Concat([]string{"measure"}, c.Args), strings.NewReader(""), &out, &errs)
			if (code == 0) != (c.RC == 0) || strings.TrimSpace(out.String()) != c.Out {
				t.Errorf("%q: exit code %d, %q, %s; want %d, %q", c.Args, code, out.String(), errs.String(), c.RC, c.Out)
			}
			ran++
		}
	}
	if ran != 45+46+51 {
		t.Errorf("%d command lines", ran)
	}
}
