package keyserver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// upgrade takes images of a store's first form over: one passphrase each, sealed alone, and a policy of a few numbers. It
// runs in the transaction of the migrations. An image that does not open, does not open the store.
func upgrade(ctx context.Context, on queries, key *Key, random io.Reader) error {
	old, err := oldImages(ctx, on)
	if err != nil || len(old) == 0 {
		return err
	}
	var taken int64
	if err := on.row(ctx, `SELECT count(*) FROM images WHERE policy_version <> 0`).Scan(&taken); err != nil {
		return err
	}
	if taken > 0 { // all are taken over at once: this is somebody who wants a list of revocations signed anew
		return fmt.Errorf("image %s: %w", old[0].name, errMixed)
	}
	for _, m := range old {
		if err := m.upgrade(ctx, on, key, random); err != nil {
			return fmt.Errorf("take over image %s: %w", m.name, err)
		}
	}
	return signRevocations(ctx, on, key)
}

var errMixed = errors.New("is of the store's first form, others are not: somebody changed the database")

// oldImage is an image of the first form.
type oldImage struct {
	image
	passphrase []byte // sealed; nil: revoked
}

func oldImages(ctx context.Context, on queries) ([]*oldImage, error) {
	rows, err := on.rows(ctx, `SELECT i.name, i.version, i.record, i.policy, i.registered, s.sealed
		FROM images i LEFT JOIN secrets_1 s ON s.image = i.name AND s.id = ? WHERE i.policy_version = 0`, sev.DiskPassphrase.String())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []*oldImage
	for rows.Next() {
		m := new(oldImage)
		var registered int64
		if err := rows.Scan(&m.name, &m.version, &m.recordB, &m.policyB, &registered, &m.passphrase); err != nil {
			return nil, err
		}
		m.registered = time.Unix(registered, 0).UTC()
		list = append(list, m)
	}
	return list, rows.Err()
}

func (m *oldImage) upgrade(ctx context.Context, on queries, key *Key, random io.Reader) error {
	before := m.policyB
	var err error
	if m.policy, err = oldPolicy(before); err != nil {
		return err
	}
	if m.policyB, err = m.policy.Encode(); err != nil {
		return err
	}
	if m.record, err = measure.ReadRecord(bytes.NewReader(m.recordB)); err != nil {
		return err
	}
	m.policyVersion = 1
	if m.passphrase != nil {
		id := sev.DiskPassphrase.String()
		plain, err := key.open(m.passphrase, []byte("secret"), []byte(m.name), number(m.version), m.recordB, before, []byte(id))
		if err != nil {
			return err
		}
		defer clear(plain)
		v := new(vault)
		defer v.wipe()
		v.put(sev.DiskPassphrase, plain, m.registered)
		if err := key.sealVault(&m.image, v, random); err != nil {
			return err
		}
		if _, err := on.exec(ctx, `INSERT INTO secrets (image, sealed) VALUES (?, ?)`, m.name, m.sealed); err != nil {
			return err
		}
	} else {
		var revoked int64
		if err := on.row(ctx, `SELECT count(*) FROM revocations WHERE kind = ? AND value = ?`, string(RevokedImage), m.name).Scan(&revoked); err != nil {
			return err
		}
		if revoked != 1 {
			return errors.New("it has no passphrase")
		}
	}
	for _, step := range []struct {
		query string
		args  []any
	}{
		{`DELETE FROM secrets_1 WHERE image = ?`, []any{m.name}},
		{`UPDATE images SET policy = ?, policy_version = ? WHERE name = ?`, []any{m.policyB, m.policyVersion, m.name}},
		{`INSERT INTO policies (image, version, image_version, policy, made) VALUES (?, ?, ?, ?, ?)`,
			[]any{m.name, m.policyVersion, m.version, m.policyB, m.registered.Unix()}},
		{`INSERT INTO releases (image, n, mac) VALUES (?, 0, ?)`, []any{m.name, key.countMAC(&m.image, 0)}},
	} {
		if _, err := on.exec(ctx, step.query, step.args...); err != nil {
			return err
		}
	}
	return nil
}

// oldPolicy reads a policy of the first form: what it did not know is not restricted.
func oldPolicy(b []byte) (Policy, error) {
	var j struct {
		Guest    uint32 `json:"guest_policy"`
		MinMajor uint8  `json:"min_api_major"`
		MinMinor uint8  `json:"min_api_minor"`
		MinBuild uint8  `json:"min_build"`
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return Policy{}, fmt.Errorf("read policy: %w", err)
	}
	p := DefaultPolicy()
	p.SEV.Guest = sev.Policy(j.Guest & 0xffff)
	if api := (sev.API{Major: j.MinMajor, Minor: j.MinMinor, Build: j.MinBuild}); api != (sev.API{}) {
		p.SEV.MinAPI = Only(api)
	}
	return p, p.Validate()
}
