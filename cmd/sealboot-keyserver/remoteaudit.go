package main

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/adminclient"
)

// listRemote gives the rows of a server's audit that the filter chooses. The chain is not verified: it returns how many rows there were.
func listRemote(ctx context.Context, c *adminclient.Client, f keyserver.AuditFilter, show func(keyserver.Row) error) (rows int64, err error) {
	q := adminclient.RowsQuery{Image: f.Image, Event: string(f.Event), Class: string(f.Class), Since: f.Since, Until: f.Until}
	switch {
	case f.Granted:
		q.Class = "granted"
	case f.Refused && f.Class == "":
		q.Class = "refusals"
	}
	for {
		some, err := c.Rows(ctx, q)
		if err != nil {
			return 0, err
		}
		for _, r := range some.Rows {
			row := keyserver.Row{Seq: r.Seq, Hash: r.Hash}
			if err := json.Unmarshal(r.Entry, &row.Entry); err != nil {
				return 0, fmt.Errorf("row %d of the server's audit does not read: %w", r.Seq, err)
			}
			if err := show(row); err != nil {
				return 0, err
			}
		}
		if some.Next >= some.Size || some.Next <= q.After {
			return some.Size, nil
		}
		q.After = some.Next
	}
}
