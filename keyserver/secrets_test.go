package keyserver

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/internal/guid"
	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

var (
	keyBundle = guid.MustParse("e6f5a162-d67f-4750-a67c-5d065f2a9910") // of Confidential Containers' attestation agent
	aFile     = guid.MustParse("00000000-0000-4000-8000-00000000000f")
)

// table runs an exchange and gives what the guest finds, with the session.
func (l *lab) table(image string) (sev.SecretTable, string) {
	l.t.Helper()
	h := newLaunch(platforms()[0], image)
	p, err := h.run(l.t, l.client)
	must(l.t, err)
	plain, err := h.guest.OpenSecret(p.Header, p.Secret)
	must(l.t, err)
	table, err := sev.ParseSecretTable(plain)
	must(l.t, err)
	return table, h.session.ID
}

// holds checks a table's entries and their order.
func holds(t *testing.T, table sev.SecretTable, want ...sev.SecretEntry) {
	t.Helper()
	same := func(a, b sev.SecretEntry) bool {
		return a.GUID == b.GUID && (b.Data == nil || bytes.Equal(a.Data, b.Data))
	}
	if !slices.EqualFunc(table, want, same) {
		t.Fatalf("guest finds %q, want %q", table, want)
	}
}

func entryOf(id guid.GUID, data string) sev.SecretEntry {
	return sev.SecretEntry{GUID: id, Data: []byte(data)}
}

// anything is an entry whose data the test does not know.
func anything(id guid.GUID) sev.SecretEntry { return sev.SecretEntry{GUID: id} }

// TestSecrets puts secrets, rotates, rolls back and ends rotations by hand; the guest's table shows each step.
func TestSecrets(t *testing.T) {
	l := newLab(t)
	l.register("web", func(r *Registration) { r.Secrets = []Secret{{keyBundle, []byte("{}")}} })
	ctx, now, pin := t.Context(), l.clock(), anything(sev.HeaderPin)
	passphrase := entryOf(sev.DiskPassphrase, string(testPassphrase))
	check := func(want ...sev.SecretEntry) {
		t.Helper()
		table, _ := l.table("web")
		holds(t, table, want...)
	}
	version := func(want int64) func(int64, error) {
		return func(got int64, err error) {
			t.Helper()
			must(t, err)
			if got != want {
				t.Errorf("version %d, want %d", got, want)
			}
		}
	}
	check(passphrase, pin, entryOf(keyBundle, "{}"))
	version(1)(l.store.PutSecret(ctx, "web", aFile, []byte("file"), now))
	check(passphrase, pin, entryOf(aFile, "file"), entryOf(keyBundle, "{}"))

	version(2)(l.store.RotateSecret(ctx, "web", sev.DiskPassphrase, []byte("new"), now))
	old := entryOf(sev.PreviousPassphrase, string(testPassphrase))
	check(entryOf(sev.DiskPassphrase, "new"), old, pin, entryOf(aFile, "file"), anything(sev.ReleaseReceipt), entryOf(keyBundle, "{}"))
	version(3)(l.store.RollBackSecret(ctx, "web", sev.DiskPassphrase, now))
	check(passphrase, pin, entryOf(aFile, "file"), entryOf(keyBundle, "{}"))
	version(4)(l.store.RotateSecret(ctx, "web", sev.DiskPassphrase, []byte("newer"), now))
	must(t, l.store.ConfirmSecret(ctx, "web", sev.DiskPassphrase, now))
	newer := entryOf(sev.DiskPassphrase, "newer")
	check(newer, pin, entryOf(aFile, "file"), entryOf(keyBundle, "{}"))

	// Of another secret the guest gets the new version alone; the old one is in the store, for a way back.
	version(2)(l.store.RotateSecret(ctx, "web", aFile, []byte("other"), now))
	check(newer, pin, entryOf(aFile, "other"), anything(sev.ReleaseReceipt), entryOf(keyBundle, "{}"))
	list, err := l.store.ListSecrets(ctx, "web")
	must(t, err)
	if len(list) != 3 || list[0].ID != aFile || list[0].Previous != 1 || list[0].Since == nil || list[0].Bytes != 5 || list[1].Version != 4 {
		t.Errorf("%+v", list)
	}
	must(t, l.store.RevokeSecret(ctx, "web", aFile, "leaked", now))
	check(newer, pin, entryOf(keyBundle, "{}"))

	for name, test := range map[string]struct {
		got, want error
	}{
		"put what is there":        {second(l.store.PutSecret(ctx, "web", keyBundle, []byte("x"), now)), ErrSecretThere},
		"put nothing":              {second(l.store.PutSecret(ctx, "web", guid.GUID{1}, nil, now)), ErrEmptySecret},
		"put the pin":              {second(l.store.PutSecret(ctx, "web", sev.HeaderPin, []byte("x"), now)), ErrSecretID},
		"put a receipt":            {second(l.store.PutSecret(ctx, "web", sev.ReleaseReceipt, []byte("x"), now)), ErrSecretID},
		"put under zeros":          {second(l.store.PutSecret(ctx, "web", guid.GUID{}, []byte("x"), now)), ErrSecretID},
		"rotate a previous one":    {second(l.store.RotateSecret(ctx, "web", sev.PreviousPassphrase, []byte("x"), now)), ErrSecretID},
		"put into nothing":         {second(l.store.PutSecret(ctx, "nobody", guid.GUID{1}, []byte("x"), now)), ErrNoImage},
		"put what is revoked":      {second(l.store.PutSecret(ctx, "web", aFile, []byte("x"), now)), ErrSecretRevoked},
		"rotate what is revoked":   {second(l.store.RotateSecret(ctx, "web", aFile, []byte("x"), now)), ErrNoSuchSecret},
		"rotate what is not there": {second(l.store.RotateSecret(ctx, "web", guid.GUID{1}, []byte("x"), now)), ErrNoSuchSecret},
		"confirm nothing":          {l.store.ConfirmSecret(ctx, "web", keyBundle, now), ErrNotRotating},
		"roll nothing back":        {second(l.store.RollBackSecret(ctx, "web", keyBundle, now)), ErrNotRotating},
		"revoke it again":          {l.store.RevokeSecret(ctx, "web", aFile, "leaked", now), ErrNoSuchSecret},
		"revoke without a reason":  {l.store.RevokeSecret(ctx, "web", keyBundle, "", now), ErrRevocation},
		"unrevoke what is not":     {l.store.Unrevoke(ctx, RevokedChip, strings.Repeat("00", 32), now), ErrNotRevoked},
	} {
		if !errors.Is(test.got, test.want) {
			t.Errorf("%s: %v, want %v", name, test.got, test.want)
		}
	}
	check(newer, pin, entryOf(keyBundle, "{}"))
	version(2)(l.store.RotateSecret(ctx, "web", keyBundle, []byte("[]"), now))
	if _, err := l.store.RotateSecret(ctx, "web", keyBundle, []byte("x"), now); !errors.Is(err, ErrRotating) {
		t.Errorf("a rotation in a rotation: %v", err)
	}

	// A revoked secret's value is gone for good; its number is not given again.
	must(t, l.store.Unrevoke(ctx, RevokedSecret, secretName("web", aFile), now))
	check(newer, pin, anything(sev.ReleaseReceipt), entryOf(keyBundle, "[]"))
	version(3)(l.store.PutSecret(ctx, "web", aFile, []byte("again"), now))
	check(newer, pin, entryOf(aFile, "again"), anything(sev.ReleaseReceipt), entryOf(keyBundle, "[]"))
}

func second(_ int64, err error) error { return err }

// TestSecretsFit fills the secret area to the last byte, and asks for one more.
func TestSecretsFit(t *testing.T) {
	l := newLab(t)
	l.register("web")
	ctx, now := t.Context(), l.clock()
	free := 3072 - 20 - (20 + len(testPassphrase)) - (20 + 32)
	if _, err := l.store.PutSecret(ctx, "web", aFile, make([]byte, free-20+1), now); !errors.Is(err, sev.ErrTableTooLarge) ||
		!strings.Contains(err.Error(), "it has 3072 bytes, the secrets take 3088") {
		t.Errorf("a byte too many: %v", err)
	}
	_, err := l.store.PutSecret(ctx, "web", aFile, make([]byte, free-20), now)
	must(t, err)
	l.table("web")
	// A rotation needs room for the previous passphrase and the receipt.
	if _, err := l.store.RotateSecret(ctx, "web", sev.DiskPassphrase, []byte("x"), now); !errors.Is(err, sev.ErrTableTooLarge) {
		t.Errorf("a rotation without room: %v", err)
	}
	if err := (Registration{Name: "new", Record: testRecord(), Policy: DefaultPolicy(), Passphrase: testPassphrase,
		Secrets: []Secret{{aFile, make([]byte, free-19)}}}).Validate(); !errors.Is(err, sev.ErrTableTooLarge) {
		t.Errorf("a registration without room: %v", err)
	}
}

// TestReplaceKeepsSecrets says what a replacement has: what it gives and, of the same disk, what was there.
func TestReplaceKeepsSecrets(t *testing.T) {
	l := newLab(t)
	l.register("web", func(r *Registration) { r.Secrets = []Secret{{aFile, []byte("file")}} })
	ctx, now := t.Context(), l.clock()
	_, err := l.store.RotateSecret(ctx, "web", sev.DiskPassphrase, []byte("new"), now)
	must(t, err)
	replace := func(change func(*Registration)) error {
		r := Registration{Name: "web", Record: testRecord(), Policy: DefaultPolicy(), Replace: true}
		change(&r)
		_, err := l.store.Register(ctx, r, now)
		return err
	}
	must(t, replace(func(r *Registration) { r.Secrets = []Secret{{keyBundle, []byte("{}")}} }))
	table, _ := l.table("web")
	holds(t, table, entryOf(sev.DiskPassphrase, "new"), entryOf(sev.PreviousPassphrase, string(testPassphrase)), anything(sev.HeaderPin),
		entryOf(aFile, "file"), anything(sev.ReleaseReceipt), entryOf(keyBundle, "{}"))

	otherDisk := func(r *Registration) { r.Record.Disk.UUID = "00000000-0000-4000-8000-000000000002" }
	if err := replace(otherDisk); !errors.Is(err, ErrNoSecret) {
		t.Errorf("another disk without a passphrase: %v", err)
	}
	must(t, replace(func(r *Registration) { otherDisk(r); r.Passphrase = []byte("other disk") }))
	table, _ = l.table("web")
	holds(t, table, entryOf(sev.DiskPassphrase, "other disk"), anything(sev.HeaderPin), entryOf(aFile, "file"), entryOf(keyBundle, "{}"))

	must(t, l.store.RevokeSecret(ctx, "web", aFile, "leaked", now))
	if err := replace(func(r *Registration) { otherDisk(r); r.Secrets = []Secret{{aFile, []byte("x")}} }); !errors.Is(err, ErrSecretRevoked) {
		t.Errorf("a revoked secret: %v", err)
	}
	must(t, l.store.Revoke(ctx, Revocation{RevokedImage, "web", "sold", now}))
	if err := l.store.Unrevoke(ctx, RevokedImage, "web", now); !errors.Is(err, ErrStaysRevoked) {
		t.Errorf("an image whose secrets are gone: %v", err)
	}
	if err := replace(otherDisk); !errors.Is(err, ErrNoSecret) {
		t.Errorf("revoked, without a passphrase: %v", err)
	}
	must(t, replace(func(r *Registration) { r.Passphrase = testPassphrase }))
	table, _ = l.table("web")
	holds(t, table, entryOf(sev.DiskPassphrase, string(testPassphrase)), anything(sev.HeaderPin))
}

// TestPolicyVersions changes a policy and looks at what is kept.
func TestPolicyVersions(t *testing.T) {
	l := newLab(t)
	l.register("web")
	p := DefaultPolicy()
	p.Releases = Only(int64(5))
	version, err := l.store.SetPolicy(t.Context(), "web", p, l.clock())
	must(t, err)
	l.good("web")
	l.register("web", func(r *Registration) { r.Replace = true })
	list, err := l.store.Policies(t.Context(), "web")
	must(t, err)
	if version != 2 || len(list) != 3 || list[1].Version != 2 || list[1].ImageVersion != 1 || list[2].ImageVersion != 2 {
		t.Fatalf("version %d, %+v", version, list)
	}
	if n, only := list[1].Policy.Releases.Value(); !only || n != 5 {
		t.Errorf("%+v", list[1])
	}
	digests := 0
	for _, r := range l.rows() {
		switch {
		case r.Event == EventRelease && (r.PolicyVersion != 2 || r.Version != 1):
			t.Errorf("release under version %d: %+v", r.PolicyVersion, r)
		case r.Event == EventRegister || r.Event == EventPolicy:
			if len(r.PolicyDigest) != 64 {
				t.Errorf("%+v", r)
			}
			digests++
		}
	}
	if digests != 3 {
		t.Errorf("%d policies in the audit", digests)
	}
	p.SEV.Guest |= sev.ES
	strict := strictPolicy() // asks for SNP too
	for name, test := range map[string]struct{ got, want error }{
		"no image":     {second(l.store.SetPolicy(t.Context(), "nobody", p, l.clock())), ErrNoImage},
		"empty policy": {second(l.store.SetPolicy(t.Context(), "web", Policy{}, l.clock())), ErrNotSaid},
		"no digest":    {second(l.store.SetPolicy(t.Context(), "web", strict, l.clock())), ErrNoDigest},
		"no list":      {second2(l.store.Policies(t.Context(), "nobody")), ErrNoImage},
	} {
		if !errors.Is(test.got, test.want) {
			t.Errorf("%s: %v", name, test.got)
		}
	}
	// A guest policy that changes ends the sessions that have the one before; their hosts ask again.
	h := newLaunch(platforms()[0], "web")
	must(t, h.begin(t.Context(), l.client))
	h.measure(t)
	_, err = l.store.SetPolicy(t.Context(), "web", p, l.clock())
	must(t, err)
	_, err = h.finish(t.Context(), l.client)
	refusedAs(t, err, wire.Expired)
}

func second2[T any](_ T, err error) error { return err }

// TestConfirm rotates a passphrase and lets the guest confirm it.
func TestConfirm(t *testing.T) {
	l := newLab(t)
	l.register("web", func(r *Registration) { r.Secrets = []Secret{{aFile, []byte("file")}} })
	ctx := t.Context()
	_, early := l.table("web")
	rotate := func(data string) {
		t.Helper()
		_, err := l.store.RotateSecret(ctx, "web", sev.DiskPassphrase, []byte(data), l.clock())
		must(t, err)
	}
	receipt := func() (session string, key []byte) {
		t.Helper()
		table, session := l.table("web")
		r, ok := table.Find(sev.ReleaseReceipt)
		if !ok || len(r) != receiptSize || fmt.Sprintf("%x", r[:16]) != session {
			t.Fatalf("receipt %x of session %s", r, session)
		}
		return session, r[16:]
	}
	confirm := func(session string, key []byte, id guid.GUID) error {
		return l.client.Confirm(ctx, session, wire.ConfirmationRequest{Secret: id, MAC: wire.ConfirmationMAC(key, id)})
	}
	rotating := func() bool {
		t.Helper()
		list, err := l.store.ListSecrets(ctx, "web")
		must(t, err)
		return list[1].Previous != 0
	}
	rotate("second")
	session, key := receipt()
	other, otherKey := receipt()
	unmeasured := newLaunch(platforms()[0], "web")
	must(t, unmeasured.begin(ctx, l.client))
	for name, err := range map[string]error{
		"no receipt":           confirm(session, make([]byte, 32), sev.DiskPassphrase),
		"another's receipt":    confirm(session, otherKey, sev.DiskPassphrase),
		"before the rotation":  confirm(early, key, sev.DiskPassphrase),
		"session without end":  confirm(unmeasured.session.ID, key, sev.DiskPassphrase),
		"unknown session":      confirm(strings.Repeat("0", 32), key, sev.DiskPassphrase),
		"no such secret":       confirm(session, key, guid.GUID{1}),
		"MAC of other secret":  l.client.Confirm(ctx, session, wire.ConfirmationRequest{Secret: sev.DiskPassphrase, MAC: wire.ConfirmationMAC(key, aFile)}),
		"the receipt as a MAC": l.client.Confirm(ctx, session, wire.ConfirmationRequest{Secret: sev.DiskPassphrase, MAC: key}),
	} {
		t.Run(name, func(t *testing.T) { refusedAs(t, err, wire.Refused) })
	}
	must(t, confirm(session, key, aFile)) // it did use it; no rotation of it is under way
	if !rotating() {
		t.Fatal("a refused confirmation ended the rotation")
	}
	must(t, confirm(session, key, sev.DiskPassphrase))
	if rotating() {
		t.Fatal("the rotation was not ended")
	}
	table, _ := l.table("web")
	holds(t, table, entryOf(sev.DiskPassphrase, "second"), anything(sev.HeaderPin), entryOf(aFile, "file"))
	rows := len(l.rows())
	for range 3 { // again, and by another guest that got the same version: nothing changes, nothing is written
		must(t, confirm(session, key, sev.DiskPassphrase))
		must(t, confirm(other, otherKey, sev.DiskPassphrase))
	}
	if n := len(l.rows()); n != rows {
		t.Errorf("%d rows for nothing", n-rows)
	}

	// An old confirmation does not end the next rotation.
	rotate("third")
	refusedAs(t, confirm(session, key, sev.DiskPassphrase), wire.Refused)
	if !rotating() {
		t.Fatal("an old receipt ended a new rotation")
	}
	session, key = receipt()
	must(t, confirm(session, key, sev.DiskPassphrase))

	// An hour after its end the session is forgotten, and with it the receipt.
	rotate("fourth")
	session, key = receipt()
	l.wait(DefaultSessionTTL + keepEnded)
	must(t, l.server.Expire(ctx))
	refusedAs(t, confirm(session, key, sev.DiskPassphrase), wire.Refused)
	session, key = receipt()
	must(t, l.store.Revoke(ctx, Revocation{RevokedImage, "web", "sold", l.clock()}))
	refusedAs(t, confirm(session, key, sev.DiskPassphrase), wire.Refused)
}

// TestConfirmationsLookAlike holds what a host sees of confirmations that are refused for different causes against each other, and
// looks at the one that is taken.
func TestConfirmationsLookAlike(t *testing.T) {
	l := newLab(t)
	l.register("web")
	_, err := l.store.RotateSecret(t.Context(), "web", sev.DiskPassphrase, []byte("new"), l.clock())
	must(t, err)
	table, session := l.table("web")
	receipt, _ := table.Find(sev.ReleaseReceipt)
	send := func(session string, id guid.GUID, mac []byte) (int, http.Header, string) {
		body, err := wire.ConfirmationRequest{Secret: id, MAC: mac}.Encode()
		must(t, err)
		return l.raw("POST", "/v1/sessions/"+session+"/confirmation", wire.MediaType, bytes.NewReader(body))
	}
	good := wire.ConfirmationMAC(receipt[16:], sev.DiskPassphrase)
	seen := map[string]bool{}
	for _, try := range []struct {
		session string
		id      guid.GUID
		mac     []byte
	}{{session, sev.DiskPassphrase, make([]byte, 32)}, {strings.Repeat("0", 32), sev.DiskPassphrase, good}, {session, aFile, wire.ConfirmationMAC(receipt[16:], aFile)}, {"x", aFile, good}} {
		status, header, text := send(try.session, try.id, try.mac)
		p, err := wire.DecodeProblem(strings.NewReader(text), status)
		must(t, err)
		header.Del("Date")
		seen[fmt.Sprint(status, header, strings.ReplaceAll(text, p.Request, "ID"))] = true
	}
	if len(seen) != 1 {
		t.Errorf("a host can tell them apart: %v", seen)
	}
	status, header, text := send(session, sev.DiskPassphrase, good)
	if status != http.StatusNoContent || text != "" || header.Get("Content-Type") != "" || header.Get("Cache-Control") != "no-store" {
		t.Errorf("%d %q %q", status, header, text)
	}
}
