package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// tree has a group and a command that ends with the given error.
func tree(err error) *cobra.Command {
	root := &cobra.Command{Use: "program"}
	group := &cobra.Command{Use: "group"}
	group.AddCommand(&cobra.Command{Use: "work", Args: cobra.NoArgs, RunE: func(*cobra.Command, []string) error { return err }})
	root.AddCommand(group)
	return root
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args string
		err  error
		code int
		says string
	}{
		{"group work", nil, ExitYes, ""},
		{"group work", errors.New("disk full"), ExitBroken, "program: disk full\n"},
		{"group work", Usagef("no %s", "disk"), ExitUsage, "program: no disk\n"},
		{"group work", fmt.Errorf("open: %w", Refusef("not yours")), ExitNo, "program: open: not yours\n"},
		{"group work more", nil, ExitUsage, "program: unknown command"},
		{"group work --flag", nil, ExitUsage, "program: unknown flag: --flag\n"},
		{"group play", nil, ExitUsage, `program: program group has no command "play": see program group --help` + "\n"},
		{"group", nil, ExitYes, ""},
	} {
		var out, errs bytes.Buffer
		code := Run(t.Context(), tree(c.err), strings.Fields(c.args), nil, &out, &errs)
		if code != c.code || !strings.HasPrefix(errs.String(), c.says) || c.says == "" && errs.Len() > 0 {
			t.Errorf("%q, %v: exit code %d, %q; want %d, %q", c.args, c.err, code, &errs, c.code, c.says)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var errs bytes.Buffer
	if code := Run(ctx, tree(context.Canceled), []string{"group", "work"}, nil, nil, &errs); code != ExitBroken || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("interrupted: exit code %d, %q", code, &errs)
	}
}
