package admin_test

import (
	"bytes"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver"
	"github.com/sealboot/sealboot/keyserver/access"
	"github.com/sealboot/sealboot/keyserver/adminclient"
	"github.com/sealboot/sealboot/keyserver/auditlog"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

var other = guid.MustParse("b5c1a1fe-0d1f-4c55-9f6c-3f0f5b7d2c11")

// TestImages registers, lists, shows and replaces.
func TestImages(t *testing.T) {
	l := newLab(t)
	c := l.as("register")
	r := registration(t, "web")
	r.Secrets = []wire.Given{{Secret: other, Data: []byte("a file for the guest")}}
	made, err := c.Register(t.Context(), r)
	must(t, err)
	if made != (wire.Registered{Image: "web", Version: 1}) {
		t.Fatalf("%+v", made)
	}
	row := l.last()
	if row.Event != keyserver.EventRegister || row.Principal != "register" || row.Image != "web" || len(row.Request) != 16 || row.Source != "127.0.0.1" {
		t.Errorf("audit has %+v", row)
	}
	list, err := l.as("audit").Images(t.Context())
	must(t, err)
	if len(list) != 1 || list[0].Image != "web" || list[0].State != "valid" || list[0].PolicyVersion != 1 || len(list[0].Digests) != 1 || !list[0].Registered.Equal(l.clock()) {
		t.Errorf("%+v", list)
	}
	d, err := c.Documents(t.Context(), "web")
	must(t, err)
	if !bytes.Equal(d.Record, r.Record) || !bytes.Equal(d.Policy, r.Policy) || d.Version != 1 {
		t.Errorf("%+v", d)
	}
	secrets, err := c.Secrets(t.Context(), "web")
	must(t, err)
	if len(secrets) != 2 {
		t.Errorf("%+v", secrets)
	}

	_, err = c.Register(t.Context(), r)
	if detail := l.refused(err, wire.Conflict); !strings.Contains(detail, keyserver.ErrImageThere.Error()) {
		t.Errorf("told %q", detail)
	}
	if row := l.last(); row.Event != keyserver.EventAdmin || row.Class != wire.Conflict || row.Principal != "register" || row.Target != "POST /v1/admin/images" {
		t.Errorf("audit has %+v", row)
	}
	next := wire.Replacement{Replaces: 1, Record: r.Record, Policy: r.Policy}
	made, err = c.Replace(t.Context(), "web", next)
	must(t, err)
	if made.Version != 2 {
		t.Errorf("%+v", made)
	}
	_, err = c.Replace(t.Context(), "web", next) // as somebody who has not seen version 2
	l.refused(err, wire.Changed)
	next.Replaces = 0
	_, err = c.Replace(t.Context(), "web", next)
	must(t, err)
	for _, name := range []string{"nobody", "a/b", strings.Repeat("x", 65)} {
		_, err = c.Replace(t.Context(), name, next)
		l.refused(err, wire.NothingThere)
		_, err = c.Documents(t.Context(), name)
		l.refused(err, wire.NothingThere)
	}
	for name, spoil := range map[string]func(*wire.Registration){
		"record":        func(r *wire.Registration) { r.Record = append(bytes.Clone(r.Record), ' ') },
		"no record":     func(r *wire.Registration) { r.Record = []byte("{}") },
		"policy":        func(r *wire.Registration) { r.Policy = []byte(`{"sev":{}}`) },
		"weak policy":   func(r *wire.Registration) { r.Policy = bytes.Replace(r.Policy, []byte(`"noks",`), nil, 1) },
		"large secret":  func(r *wire.Registration) { r.Passphrase = make([]byte, 4000) },
		"reserved GUID": func(r *wire.Registration) { r.Secrets = []wire.Given{{Secret: sev.HeaderPin, Data: []byte{1}}} },
		"secret twice":  func(r *wire.Registration) { r.Secrets = append(r.Secrets, r.Secrets[0]) },
		"no such digest": func(r *wire.Registration) {
			r.Policy = bytes.Replace(r.Policy, []byte(`"noks",`), []byte(`"noks","es",`), 1)
		},
	} {
		bad := registration(t, "bad")
		bad.Secrets = []wire.Given{{Secret: other, Data: []byte("x")}}
		spoil(&bad)
		_, err := c.Register(t.Context(), bad)
		if detail := l.refused(err, wire.Unacceptable); detail == "" {
			t.Errorf("%s: not told why", name)
		}
	}
}

// TestPolicies sets, shows and tries.
func TestPolicies(t *testing.T) {
	l := newLab(t)
	l.register("web")
	c := l.as("register")
	strict := testPolicy(t, func(p *keyserver.Policy) { p.Releases = keyserver.Only(int64(3)) })
	version, err := c.SetPolicy(t.Context(), "web", wire.NewPolicy{Replaces: 1, Policy: strict})
	must(t, err)
	if version != 2 || l.last().PolicyVersion != 2 || l.last().Principal != "register" {
		t.Errorf("version %d, audit %+v", version, l.last())
	}
	_, err = c.SetPolicy(t.Context(), "web", wire.NewPolicy{Replaces: 1, Policy: testPolicy(t)})
	l.refused(err, wire.Changed)
	_, err = c.SetPolicy(t.Context(), "web", wire.NewPolicy{Policy: []byte("{}")})
	l.refused(err, wire.Unacceptable)
	_, err = c.SetPolicy(t.Context(), "nobody", wire.NewPolicy{Policy: strict})
	l.refused(err, wire.NothingThere)

	list, err := l.as("audit").Policies(t.Context(), "web")
	must(t, err)
	if len(list) != 2 || list[1].Version != 2 || list[1].SHA256 != l.rowOf(keyserver.EventPolicy).PolicyDigest {
		t.Errorf("%+v", list)
	}
	d, err := c.Policy(t.Context(), "web", 2)
	must(t, err)
	if !bytes.Equal(d.Policy, strict) {
		t.Errorf("%s", d.Policy)
	}
	_, err = c.Policy(t.Context(), "web", 3)
	l.refused(err, wire.NothingThere)

	digest := wire.Trial{Address: "192.0.2.1", Digest: strings.Repeat("0", 64), APIMajor: 1, APIMinor: 55, Build: 21}
	v, err := c.TestPolicy(t.Context(), "web", digest)
	must(t, err)
	if v.Verdict != "refuse" || len(v.Complaints) != 1 || !strings.Contains(v.Complaints[0], sev.ErrMeasurement.Error()) {
		t.Errorf("wrong digest: %+v", v)
	}
	digest.Digest = hexOf(goodDigest[:])
	if v, err = c.TestPolicy(t.Context(), "web", digest); err != nil || v.Verdict != "release" || v.Digest != digest.Digest || len(v.Complaints) != 0 {
		t.Errorf("good digest: %+v, %v", v, err)
	}
	narrow := digest
	narrow.Policy = testPolicy(t, func(p *keyserver.Policy) {
		p.NotAfter = keyserver.Only(l.clock().UTC().Add(-time.Hour))
		p.SEV.MinAPI = keyserver.Only(sev.API{Major: 1, Minor: 56, Build: 1})
	})
	if v, err = c.TestPolicy(t.Context(), "web", narrow); err != nil || v.Verdict != "refuse" || len(v.Complaints) != 2 {
		t.Errorf("another policy: %+v, %v", v, err)
	}
	if v, err = c.TestPolicy(t.Context(), "web", wire.Trial{}); err != nil || v.Verdict != "release" || v.Digest != "" {
		t.Errorf("circumstances: %+v, %v", v, err)
	}
	narrow.Digest = strings.Repeat("0", 96)
	_, err = c.TestPolicy(t.Context(), "web", narrow)
	l.refused(err, wire.Unacceptable)
	_, err = c.TestPolicy(t.Context(), "web", wire.Trial{Report: make([]byte, 1184)})
	l.refused(err, wire.Unacceptable)
	digest.Report = make([]byte, 1184)
	_, err = c.TestPolicy(t.Context(), "web", digest)
	l.refused(err, wire.Unacceptable)
}

// rowOf gives the last row of an event.
func (l *lab) rowOf(e keyserver.Event) (found keyserver.Row) {
	l.t.Helper()
	for _, r := range l.rows() {
		if r.Event == e {
			found = r
		}
	}
	return found
}

// TestSecrets puts, rotates, confirms, rolls back and revokes.
func TestSecrets(t *testing.T) {
	l := newLab(t)
	l.register("web")
	c := l.as("register")
	version := func(n int64, err error) int64 {
		t.Helper()
		must(t, err)
		if r := l.last(); r.Principal != "register" || r.Target != other.String() || r.SecretVersion != n {
			t.Errorf("audit has %+v", r)
		}
		return n
	}
	if n := version(c.PutSecret(t.Context(), "web", other, []byte("one"))); n != 1 {
		t.Errorf("version %d", n)
	}
	_, err := c.PutSecret(t.Context(), "web", other, []byte("one"))
	l.refused(err, wire.Conflict)
	version(c.RotateSecret(t.Context(), "web", other, []byte("two")))
	_, err = c.RotateSecret(t.Context(), "web", other, []byte("three"))
	l.refused(err, wire.Conflict)
	list, err := l.as("audit").Secrets(t.Context(), "web")
	must(t, err)
	found := false
	for _, s := range list {
		if s.Secret == other {
			found = true
			if s.Version != 2 || s.Previous != 1 || s.Bytes != 3 || s.State != "valid" {
				t.Errorf("%+v", s)
			}
		}
	}
	if !found {
		t.Errorf("%+v", list)
	}
	must(t, c.ConfirmSecret(t.Context(), "web", other))
	l.refused(c.ConfirmSecret(t.Context(), "web", other), wire.Conflict)
	_, err = c.RollBackSecret(t.Context(), "web", other)
	l.refused(err, wire.Conflict)
	version(c.RotateSecret(t.Context(), "web", other, []byte("three")))
	version(c.RollBackSecret(t.Context(), "web", other))
	_, err = c.RotateSecret(t.Context(), "web", guid.MustParse("00000000-0000-4000-8000-00000000000a"), []byte("x"))
	l.refused(err, wire.NothingThere)
	_, err = c.PutSecret(t.Context(), "web", sev.ReleaseReceipt, []byte("x"))
	l.refused(err, wire.Unacceptable)
	_, err = c.PutSecret(t.Context(), "web", guid.MustParse("00000000-0000-4000-8000-00000000000a"), make([]byte, 3072))
	l.refused(err, wire.Unacceptable)
	if answer, _ := l.raw("PUT", "/v1/admin/images/web/secrets/X", l.tokens["register"], jsonHeader, strings.NewReader(`{"data":"eA=="}`)); answer.StatusCode != 404 {
		t.Errorf("secret X: %d", answer.StatusCode)
	}

	name := "web/" + other.String()
	must(t, c.Revoke(t.Context(), wire.NewRevocation{Kind: "secret", Value: name, Reason: "lost"}))
	revoked, err := l.as("audit").Revocations(t.Context())
	must(t, err)
	if want := []wire.Revocation{{Kind: "secret", Value: name, Reason: "lost", Time: l.clock().UTC()}}; !reflect.DeepEqual(revoked, want) {
		t.Errorf("%+v", revoked)
	}
	_, err = c.PutSecret(t.Context(), "web", other, []byte("x"))
	l.refused(err, wire.Conflict)
	l.refused(c.Revoke(t.Context(), wire.NewRevocation{Kind: "digest", Value: "00", Reason: "x"}), wire.Unacceptable)
	l.refused(c.Revoke(t.Context(), wire.NewRevocation{Kind: "image", Value: "nobody", Reason: "x"}), wire.NothingThere)
	must(t, c.Unrevoke(t.Context(), "secret", name))
	l.refused(c.Unrevoke(t.Context(), "secret", name), wire.NothingThere)
	l.refused(c.Unrevoke(t.Context(), "other", "x"), wire.NothingThere)
	must(t, c.Revoke(t.Context(), wire.NewRevocation{Kind: "image", Value: "web", Reason: "sold"}))
	l.refused(c.Revoke(t.Context(), wire.NewRevocation{Kind: "image", Value: "web", Reason: "sold"}), wire.Conflict)
	l.refused(c.Unrevoke(t.Context(), "image", "web"), wire.Conflict)
	_, err = c.SetPolicy(t.Context(), "web", wire.NewPolicy{Policy: testPolicy(t)})
	l.refused(err, wire.Conflict)
}

// TestAudit reads, signs and exports.
func TestAudit(t *testing.T) {
	l := newLab(t)
	for _, name := range []string{"a", "b", "c"} {
		l.register(name)
	}
	c := l.as("audit")
	all, err := c.Rows(t.Context(), adminclient.RowsQuery{})
	must(t, err)
	if own := l.rows(); len(all.Rows) != len(own) || all.Size != int64(len(own)) || all.Next != all.Size {
		t.Fatalf("%d rows of %d, next %d, size %d", len(all.Rows), len(own), all.Next, all.Size)
	}
	head := auditlog.Head{}
	for _, r := range all.Rows { // what came is enough to check the chain
		head = head.Next(r.Entry)
		if head.Hash.String() != r.Hash || head.Size != r.Seq {
			t.Fatalf("row %d does not follow", r.Seq)
		}
	}
	var seen []string
	q := adminclient.RowsQuery{Limit: 1, Event: "register"}
	for {
		some, err := c.Rows(t.Context(), q)
		must(t, err)
		for _, r := range some.Rows {
			var e keyserver.Entry
			must(t, json.Unmarshal(r.Entry, &e))
			seen = append(seen, e.Image)
		}
		if q.After = some.Next; some.Next == some.Size {
			break
		}
	}
	if got := strings.Join(seen, ""); got != "abc" {
		t.Errorf("pages gave %q", got)
	}
	some, err := c.Rows(t.Context(), adminclient.RowsQuery{Image: "b", Class: "granted", Since: l.clock().Add(-time.Hour), Until: l.clock().Add(time.Hour)})
	must(t, err)
	if len(some.Rows) != 1 {
		t.Errorf("%d rows of b", len(some.Rows))
	}
	for _, bad := range []string{"after=-1", "after=x", "limit=0", "limit=501", "image=/", "event=x", "class=x", "since=x", "other=1", "after=1&after=2", "image=", "%zz", "limit=01"} {
		answer, text := l.raw("GET", "/v1/admin/audit?"+bad, l.tokens["audit"], nil, nil)
		if p, err := wire.DecodeDetailed(strings.NewReader(text), answer.StatusCode); err != nil || p.Class != wire.Malformed {
			t.Errorf("%s: %d %s", bad, answer.StatusCode, text)
		}
	}

	note, err := c.Checkpoint(t.Context())
	must(t, err)
	last, err := c.LastCheckpoint(t.Context())
	must(t, err)
	if !bytes.Equal(note, last) {
		t.Error("the checkpoint that was made is not the last one")
	}
	text, err := c.AuditKey(t.Context())
	must(t, err)
	key, err := auditlog.ParsePublicKey(text)
	must(t, err)
	if _, err := key.Open(note); err != nil {
		t.Error(err)
	}
	var whole bytes.Buffer
	must(t, c.Export(t.Context(), &whole, nil))
	if !bytes.Contains(whole.Bytes(), []byte(`register`)) {
		t.Errorf("export: %s", whole.String())
	}
	l.register("d")
	var rest bytes.Buffer
	must(t, c.Export(t.Context(), &rest, note))
	if rest.Len() == 0 || rest.Len() >= whole.Len() || !bytes.Contains(rest.Bytes(), []byte("sealboot-audit-")) {
		t.Errorf("behind the checkpoint: %d bytes, the whole had %d", rest.Len(), whole.Len())
	}
	l.refused(c.Export(t.Context(), &rest, []byte("no checkpoint")), wire.Unacceptable)
}

// TestPrincipals adds both kinds, and takes one away that has been working.
func TestPrincipals(t *testing.T) {
	l := newLab(t)
	c := l.as("admin")
	p, token, err := access.NewTokenPrincipal("ann", access.Register|access.Audit, time.Hour, rand.Reader, l.clock())
	must(t, err)
	good := newPrincipal(p)
	for name, spoil := range map[string]func(*wire.NewPrincipal){
		"role twice":        func(n *wire.NewPrincipal) { n.Roles = "audit,audit" },
		"too long":          func(n *wire.NewPrincipal) { n.Expires = n.Expires.Add(access.MaxTokenLife) },
		"over":              func(n *wire.NewPrincipal) { n.Expires = l.clock() },
		"digest of nothing": func(n *wire.NewPrincipal) { n.Digest = strings.Repeat("0", 64) },
	} {
		bad := good
		spoil(&bad)
		_, err := c.AddPrincipal(t.Context(), bad)
		if detail := l.refused(err, wire.Unacceptable); detail == "" {
			t.Errorf("%s: not told why", name)
		}
	}
	made, err := c.AddPrincipal(t.Context(), good)
	must(t, err)
	if made.Digest != good.Digest || !made.Created.Equal(l.clock()) || !made.Expires.Equal(p.Expires) {
		t.Errorf("%+v", made)
	}
	if r := l.last(); r.Event != keyserver.EventAddPrincipal || r.Principal != "admin" || r.Target != "ann" {
		t.Errorf("audit has %+v", r)
	}
	l.tokens["ann"] = string(token)
	ann := l.as("ann")
	status, err := ann.Status(t.Context())
	must(t, err)
	if status.Principal != "ann" || status.Roles != "register,audit" || !status.Time.Equal(l.clock()) {
		t.Errorf("%+v", status)
	}
	_, err = c.AddPrincipal(t.Context(), good)
	l.refused(err, wire.Conflict)
	good.Name = "ann2" // with the same credential
	_, err = c.AddPrincipal(t.Context(), good)
	l.refused(err, wire.Conflict)

	bob := l.issue("bob")
	leaf, err := x509.ParseCertificate(bob.Certificate[0])
	must(t, err)
	p, err = access.NewCertificatePrincipal("bob", access.Audit, leaf, l.clock())
	must(t, err)
	if made, err = c.AddPrincipal(t.Context(), newPrincipal(p)); err != nil || made.Kind != "certificate" || made.Roles != "audit" {
		t.Errorf("%+v, %v", made, err)
	}
	asBob, err := adminclient.New(l.url, nil, l.transport(bob))
	must(t, err)
	if status, err := asBob.Status(t.Context()); err != nil || status.Principal != "bob" {
		t.Errorf("%+v, %v", status, err)
	}
	list, err := l.rootClient().Principals(t.Context())
	must(t, err)
	if len(list) != 7 {
		t.Errorf("%+v", list)
	}

	must(t, c.RemovePrincipal(t.Context(), "ann"))
	_, err = ann.Status(t.Context())
	if detail := l.refused(err, wire.Unauthenticated); detail != "" {
		t.Errorf("told %q", detail)
	}
	must(t, c.RemovePrincipal(t.Context(), "bob"))
	_, err = asBob.Status(t.Context()) // on the connection that was made before
	l.refused(err, wire.Unauthenticated)
	l.refused(c.RemovePrincipal(t.Context(), "ann"), wire.NothingThere)
	l.refused(c.RemovePrincipal(t.Context(), "-"), wire.NothingThere)
}

func newPrincipal(p access.Principal) wire.NewPrincipal {
	return wire.NewPrincipal{Name: p.Name, Kind: string(p.Kind), Digest: p.Digest.String(), Roles: p.Roles.String(), Expires: p.Expires}
}

// TestBackup takes one, and makes a store of it.
func TestBackup(t *testing.T) {
	l := newLab(t)
	const image = "a-name-that-is-looked-for" // long, since a short one may stand in encrypted bytes by chance
	l.register(image)
	var file bytes.Buffer
	must(t, l.as("admin").Backup(t.Context(), &file))
	if r := l.last(); r.Event != keyserver.EventBackup || r.Principal != "admin" {
		t.Errorf("audit has %+v", r)
	}
	if file.Len() < 1000 || bytes.Contains(file.Bytes(), passphrase) || bytes.Contains(file.Bytes(), []byte(image)) {
		t.Errorf("backup of %d bytes", file.Len())
	}
	for _, role := range []string{"register", "release", "audit"} {
		l.refused(l.as(role).Backup(t.Context(), &file), wire.Forbidden)
	}
}
