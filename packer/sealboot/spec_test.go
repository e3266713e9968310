package sealboot

import (
	"bytes"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/packer-plugin-sdk/common"
)

// TestFields holds Config, FlatConfig and the specification together, and README.md to them.
func TestFields(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	spec := new(FlatConfig).HCL2Spec()
	fields := append(tags(t, common.PackerConfig{}), tags(t, Config{})...)
	slices.Sort(fields)
	flat := tags(t, FlatConfig{})
	slices.Sort(flat)
	if !slices.Equal(fields, flat) {
		t.Errorf("Config has %q, FlatConfig %q", fields, flat)
	}
	if len(spec) != len(fields) || len(fields) < 20 {
		t.Errorf("%d fields, %d in the specification", len(fields), len(spec))
	}
	for _, name := range fields {
		if spec[name] == nil {
			t.Errorf("%s is not in the specification", name)
		}
		if !strings.HasPrefix(name, "packer_") && !bytes.Contains(readme, []byte("| `"+name+"` |")) {
			t.Errorf("README.md does not describe %s", name)
		}
	}
}

// tags gives the names of a configuration's fields.
func tags(t *testing.T, config any) []string {
	t.Helper()
	var names []string
	for _, field := range reflect.VisibleFields(reflect.TypeOf(config)) {
		if name := field.Tag.Get("mapstructure"); len(field.Index) == 1 && !strings.HasPrefix(name, ",") {
			names = append(names, name)
		}
	}
	return names
}
