package keyserver

import (
	"slices"
	"testing"

	"github.com/sealboot/sealboot/sev"
)

// TestActor makes each kind of change as somebody: the audit names them, for what they did and nothing else.
func TestActor(t *testing.T) {
	l := newLab(t)
	l.register("web")
	l.good("web")
	ctx, now := WithActor(t.Context(), Actor{Name: "ann", Request: "0011", Source: "192.0.2.1"}), l.clock()
	_, err := l.store.Register(ctx, Registration{Name: "web", Record: testRecord(), Policy: DefaultPolicy(), Replace: true}, now)
	must(t, err)
	_, err = l.store.SetPolicy(ctx, "web", DefaultPolicy(), now)
	must(t, err)
	_, err = l.store.PutSecret(ctx, "web", aFile, []byte("x"), now)
	must(t, err)
	_, err = l.store.RotateSecret(ctx, "web", aFile, []byte("y"), now)
	must(t, err)
	_, err = l.store.RollBackSecret(ctx, "web", aFile, now)
	must(t, err)
	_, err = l.store.RotateSecret(ctx, "web", sev.DiskPassphrase, testPassphrase, now)
	must(t, err)
	must(t, l.store.ConfirmSecret(ctx, "web", sev.DiskPassphrase, now))
	must(t, l.store.RevokeSecret(ctx, "web", aFile, "leaked", now))
	must(t, l.store.Unrevoke(ctx, RevokedSecret, secretName("web", aFile), now))
	must(t, l.store.Revoke(ctx, Revocation{RevokedImage, "web", "sold", now}))
	rows := l.rows()
	var events []Event
	for _, r := range rows[3:] {
		if r.Principal != "ann" || r.Request != "0011" || r.Source != "192.0.2.1" || r.Image != "web" {
			t.Errorf("%+v", r)
		}
		if r.Event == EventPut && (r.Target != aFile.String() || r.SecretVersion != 1 || r.PolicyVersion != 3) {
			t.Errorf("%+v", r)
		}
		events = append(events, r.Event)
	}
	if want := []Event{EventRegister, EventPolicy, EventPut, EventRotate, EventRollBack, EventRotate, EventConfirm, EventRevoke, EventUnrevoke, EventRevoke}; !slices.Equal(events, want) {
		t.Errorf("audit has %v, want %v", events, want)
	}
	for _, r := range rows[:3] {
		if r.Principal != "" {
			t.Errorf("nobody's act: %+v", r)
		}
	}
}
