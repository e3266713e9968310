package keyserver

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// only makes a record of one digest of mode SEV.
func only(digest sev.Digest) func(*Registration) {
	return func(r *Registration) {
		r.Record.Digests = []measure.LaunchDigest{{Launch: measure.Launch{Mode: measure.SEV}, Digest: digest[:]}}
		r.Replace = true
	}
}

// TestCauseNamesOtherVersions starts machines from what other registrations have.
func TestCauseNamesOtherVersions(t *testing.T) {
	l := newLab(t)
	first, second, third, foreign := sha256.Sum256([]byte("first")), sha256.Sum256([]byte("second")), sha256.Sum256([]byte("third")), sha256.Sum256([]byte("foreign"))
	for _, digest := range []sev.Digest{first, second, third} {
		l.register("web", only(digest))
	}
	l.register("db", only(foreign))
	run := func(digest sev.Digest) error {
		h := newLaunch(platforms()[0], "web")
		h.digest = digest
		_, err := h.run(t, l.client)
		return err
	}
	must(t, run(third))
	for _, test := range []struct {
		digest sev.Digest
		want   string
	}{
		{first, "the digest is that of version 1 of image web, mode sev; the image is web, version 3"},
		{second, "the digest is that of version 2 of image web"},
		{foreign, "the digest is that of version 1 of image db, mode sev; the image is web, version 3"},
		{sha256.Sum256([]byte("nobody's")), "none of the record's digests fits"},
	} {
		err := run(test.digest)
		refusedAs(t, err, wire.Refused)
		if strings.Contains(err.Error(), "version") {
			t.Errorf("the host is told %q", err)
		}
		if cause := l.lastCause(); !strings.Contains(cause, test.want) {
			t.Errorf("audit says %q, want %q in it", cause, test.want)
		}
	}
	must(t, run(third))
}

// TestMigrationKeepsDigests takes a store of the first form, whose images have no digests noted.
func TestMigrationKeepsDigests(t *testing.T) {
	sqliteAlone(t, "PostgreSQL never had that form")
	l := newLab(t)
	oldStore(t, l)
	l.start()
	l.register("web", only(sha256.Sum256([]byte("new"))))
	h := newLaunch(platforms()[0], "web")
	_, err := h.run(t, l.client)
	refusedAs(t, err, wire.Refused)
	if cause := l.lastCause(); !strings.Contains(cause, "version 3 of image web, mode sev;") {
		t.Errorf("audit says %q", cause)
	}
}

// TestCauseOfManyDigests refuses with more digests than the search looks at.
func TestCauseOfManyDigests(t *testing.T) {
	l := newLab(t)
	l.register("web", many)
	l.register("web", many, func(r *Registration) { r.Replace = true })
	h := newLaunch(platforms()[0], "web")
	h.digest = sha256.Sum256([]byte("nobody's"))
	_, err := h.run(t, l.client)
	refusedAs(t, err, wire.Refused)
	l.goodDigest("web", numbered(700))
}

func (l *lab) goodDigest(image string, digest sev.Digest) {
	l.t.Helper()
	h := newLaunch(platforms()[0], image)
	h.digest = digest
	_, err := h.run(l.t, l.client)
	must(l.t, err)
}

func numbered(n int) sev.Digest {
	return sha256.Sum256(binary.BigEndian.AppendUint32(nil, uint32(n)))
}

// many gives the record a thousand digests.
func many(r *Registration) {
	r.Record.Digests = nil
	for n := range 1000 {
		hashes, digest := numbered(n+5000), numbered(n)
		r.Record.Digests = append(r.Record.Digests, measure.LaunchDigest{
			Launch: measure.Launch{Mode: measure.SEV, KernelHashes: hashes[:]}, Digest: digest[:]})
	}
}

// BenchmarkCause is what a refusal waits for more than a release, with three digests and with a thousand.
func BenchmarkCause(b *testing.B) {
	for name, change := range map[string]func(*Registration){"few digests": func(*Registration) {}, "many digests": many} {
		b.Run(name, func(b *testing.B) {
			l := newLab(b)
			l.register("web", change)
			for range 3 {
				l.register("web", change, func(r *Registration) { r.Replace = true })
			}
			l.register("db", many)
			f, err := l.store.find(context.Background(), "web")
			must(b, err)
			e := &SEVEvidence{Session: &sev.Session{Policy: f.image.policy.SEV.Session()}, API: testAPI}
			about, secrets, err := f.open(l.key)
			must(b, err)
			secrets.wipe()
			for b.Loop() {
				l.store.cause(context.Background(), about, f.image.version, e)
			}
		})
	}
}
