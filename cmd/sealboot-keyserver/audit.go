package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealboot/sealboot/internal/atomicfile"
	"github.com/sealboot/sealboot/internal/cli"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
)

func (a *app) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Show every decision, and prove that none was changed",
		Long: `audit shows and verifies what the key server wrote down: every decision is a row of a hash chain,
signed in checkpoints. Whoever can write the database cannot change, drop or add a row unseen; but somebody who puts
back an old copy of the whole store can only be found with a checkpoint that is kept elsewhere. So keep checkpoints, or
exports, on another machine, and there the public key.`,
	}
	cmd.AddCommand(a.auditListCommand(), a.auditVerifyCommand(), a.auditExportCommand(), a.auditCheckpointCommand(), a.auditPublicKeyCommand())
	return cmd
}

func (a *app) auditListCommand() *cobra.Command {
	var store storeFlags
	var image, event, class, since, until string
	var refusals, asJSON bool
	cmd := &cobra.Command{
		Use:   "list --store DIR",
		Short: "Show decisions, with the causes of refusals",
		Long: `list prints decisions, oldest first, and verifies the whole audit as it goes: at a changed, dropped, added or
moved row it stops with exit code 3.

--json prints one object a line: "seq", "time", "event" (register, session, release, expire, revoke, ...), "class" (absent:
granted), "cause", "reason" (what is likely behind it), "principal", "target", "image", "image_version", "policy_version",
"policy_digest", "secret_version", "session", "request", "source", "kind", "platform", "chip", "policy", "api", "tcb", "digest", "count", "hash".`,
		Example: `  sealboot-keyserver audit list --store keys --refusals --since 24h
  sealboot-keyserver audit list --store keys --json | jq 'select(.class == "refused")'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			filter, err := auditFilter(image, event, class, refusals, since, until, time.Now())
			if err != nil {
				return err
			}
			rows, shown := 0, 0
			encoder := json.NewEncoder(a.stdout)
			show := func(row keyserver.Row) error {
				if rows++; !filter.Match(row.Entry) {
					return nil
				}
				shown++
				if asJSON {
					return encoder.Encode(row)
				}
				_, err := fmt.Fprintln(a.stdout, auditLine(row))
				return err
			}
			if store.remote() {
				return store.withStream(cmd.Context(), func(ctx context.Context, c *adminclient.Client) error {
					size, err := listRemote(ctx, c, filter, show)
					if err == nil {
						fmt.Fprintf(a.stderr, "rows: %d of %d; the chain was not verified: export it, and verify the export\n", shown, size)
					}
					return err
				})
			}
			s, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			err = s.Audit(cmd.Context(), show)
			if err != nil {
				return auditError(err)
			}
			fmt.Fprintf(a.stderr, "rows: %d of %d; the chain holds\n", shown, rows)
			return nil
		},
	}
	store.addServer(cmd)
	flags := cmd.Flags()
	flags.StringVar(&image, "image", "", "decisions about this image alone")
	flags.StringVar(&event, "event", "", "this event alone")
	flags.StringVar(&class, "class", "", "this class of refusal alone, or granted")
	flags.BoolVar(&refusals, "refusals", false, "refusals alone, of all classes")
	flags.StringVar(&since, "since", "", "from this time on: RFC 3339, a date, or a duration before now (24h)")
	flags.StringVar(&until, "until", "", "before this time")
	flags.BoolVar(&asJSON, "json", false, "print one JSON object a line")
	var events, classes []string
	for _, e := range keyserver.Events() {
		events = append(events, string(e))
	}
	for _, c := range wire.Classes() {
		classes = append(classes, string(c))
	}
	cmd.RegisterFlagCompletionFunc("event", cobra.FixedCompletions(events, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("class", cobra.FixedCompletions(append(classes, "granted"), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// auditFilter refuses a value that could match nothing: an empty list would look like good news.
func auditFilter(image, event, class string, refusals bool, since, until string, now time.Time) (f keyserver.AuditFilter, err error) {
	f = keyserver.AuditFilter{Image: image, Event: keyserver.Event(event), Refused: refusals}
	if image != "" && !wire.ValidImage(image) {
		return f, cli.Usagef("--image %q is not an image's name", image)
	}
	if event != "" && !slices.Contains(keyserver.Events(), f.Event) {
		return f, cli.Usagef("--event %q is none of %v", event, keyserver.Events())
	}
	switch {
	case class == "granted":
		f.Granted = true
	case class == "" || slices.Contains(wire.Classes(), wire.Class(class)):
		f.Class = wire.Class(class)
	default:
		return f, cli.Usagef("--class %q is neither granted nor one of %v", class, wire.Classes())
	}
	if f.Granted && f.Refused {
		return f, cli.Usagef("--class granted and --refusals leave nothing")
	}
	if f.Since, err = auditTime("--since", since, now); err != nil {
		return f, err
	}
	f.Until, err = auditTime("--until", until, now)
	return f, err
}

func auditTime(flag, value string, now time.Time) (time.Time, error) {
	if value == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(value); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, value); err == nil {
			return t, nil
		}
	}
	return time.Time{}, cli.Usagef("%s %q is neither a time of RFC 3339, a date, nor a duration as 24h", flag, value)
}

// auditError makes a clear no of an audit that does not hold.
func auditError(err error) error {
	chain := (*keyserver.ChainError)(nil)
	if errors.As(err, &chain) || errors.Is(err, keyserver.ErrAuditHead) || errors.Is(err, auditlog.ErrSignature) {
		return cli.Refusef("audit does not hold: %w", err)
	}
	return err
}

func auditLine(row keyserver.Row) string {
	result := "granted"
	if row.Class != "" {
		result = string(row.Class)
	}
	line := fmt.Sprintf("%d %s %s %s", row.Seq, row.Time.Format(time.RFC3339), row.Event, result)
	for _, part := range []struct{ name, value string }{
		{"by", row.Principal}, {"image", row.Image}, {"target", row.Target}, {"session", row.Session}, {"source", row.Source},
		{"kind", row.Kind}, {"platform", row.Platform}, {"chip", row.Chip}, {"policy", row.Policy}, {"api", row.API}, {"tcb", row.TCB}, {"digest", row.Digest}, {"request", row.Request},
	} {
		if strings.ContainsFunc(part.value, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' }) {
			line += fmt.Sprintf(" %s=%q", part.name, part.value)
		} else if part.value != "" {
			line += " " + part.name + "=" + part.value
		}
	}
	if row.Count != 0 {
		line += fmt.Sprintf(" count=%d", row.Count)
	}
	if row.Cause != "" {
		line += fmt.Sprintf(" cause=%q", row.Cause)
	}
	if row.Reason != "" {
		line += fmt.Sprintf(" reason=%q", row.Reason)
	}
	return line
}

func (a *app) auditExportCommand() *cobra.Command {
	var store storeFlags
	var after, output string
	cmd := &cobra.Command{
		Use:   "export --store DIR",
		Short: "Write rows and checkpoints to a file that is verified without the store",
		Long: `export writes all rows with their checkpoints, and a new checkpoint of the last one, as JSON lines (package keyserver/auditlog
describes them), verifying them as it goes. With --after and the checkpoint at the end of an earlier export, it writes that checkpoint
and the rows behind it: the two files, one behind the other, verify as one.`,
		Example: `  sealboot-keyserver audit export --store keys --output audit.jsonl`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			var note []byte
			if after != "" {
				if note, err = a.readLimited(after, auditlog.MaxNote); err != nil {
					return err
				}
			}
			if store.remote() {
				return store.withStream(cmd.Context(), func(ctx context.Context, c *adminclient.Client) error {
					return a.exportTo(output, func(w io.Writer) error { return c.Export(ctx, w, note) })
				})
			}
			s, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			return a.exportTo(output, func(w io.Writer) error {
				return auditError(s.ExportAudit(cmd.Context(), w, time.Now(), note))
			})
		},
	}
	store.addServer(cmd)
	cmd.Flags().StringVar(&after, "after", "", "file of the checkpoint behind which to begin (- for standard input)")
	cmd.Flags().StringVar(&output, "output", "", "file to write (default: standard output)")
	return cmd
}

// exportTo writes to a file, which appears when it is whole, or to standard output.
func (a *app) exportTo(output string, write func(io.Writer) error) error {
	if output == "" {
		return write(a.stdout)
	}
	f, err := atomicfile.Create(output, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Commit()
}

func (a *app) auditCheckpointCommand() *cobra.Command {
	var store storeFlags
	cmd := &cobra.Command{
		Use:   "checkpoint --store DIR",
		Short: "Print a signed checkpoint, to be kept on another machine",
		Long: `checkpoint prints the audit's state as it stands, signed: a signed note (C2SP signed-note) with the log's name, the number
of rows, the last row's hash and the time. Kept elsewhere, it shows with audit verify --checkpoint whether any of these rows were
changed or taken back since. serve writes each checkpoint to its log too.`,
		Example: `  sealboot-keyserver audit checkpoint --store keys | ssh elsewhere 'cat > "keys.$(date +%F)"'`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if store.remote() {
				return store.withStream(cmd.Context(), func(ctx context.Context, c *adminclient.Client) error {
					note, err := c.Checkpoint(ctx)
					if err != nil {
						return err
					}
					_, err = a.stdout.Write(note)
					return err
				})
			}
			s, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			note, err := s.Checkpoint(cmd.Context(), time.Now())
			if err != nil {
				return auditError(err)
			}
			_, err = a.stdout.Write(note)
			return err
		},
	}
	store.addServer(cmd)
	return cmd
}

func (a *app) auditPublicKeyCommand() *cobra.Command {
	var store storeFlags
	cmd := &cobra.Command{
		Use:   "public-key --store DIR",
		Short: "Print the key that checks checkpoints and exports",
		Long: `public-key prints the public key of the audit, one line NAME+HASH+BASE64. It follows from the store key and never changes.
Whoever is to verify the audit must have it from here, not from an export.`,
		Example: `  sealboot-keyserver audit public-key --store keys > keys.pub`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if store.remote() {
				return store.withStream(cmd.Context(), func(ctx context.Context, c *adminclient.Client) error {
					key, err := c.AuditKey(ctx)
					if err != nil {
						return err
					}
					_, err = fmt.Fprintln(a.stdout, key)
					return err
				})
			}
			s, err := store.open(cmd.Context())
			if err != nil {
				return err
			}
			defer closing(s, &err)
			_, err = fmt.Fprintln(a.stdout, s.AuditKey())
			return err
		},
	}
	store.addServer(cmd)
	return cmd
}

// readLimited reads a file of at most limit bytes, or standard input.
func (a *app) readLimited(name string, limit int64) ([]byte, error) {
	if name != "-" {
		return cli.ReadBounded(name, limit)
	}
	data, err := io.ReadAll(io.LimitReader(a.stdin, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("standard input has more than %d bytes", limit)
	}
	return data, nil
}
