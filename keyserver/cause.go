package keyserver

import (
	"context"
	"fmt"

	"github.com/sealboot/sealboot/explain"
	"github.com/sealboot/sealboot/measure"
	"github.com/sealboot/sealboot/sev"
)

// Bounds of the search for a refusal's cause: it is made while the host waits, and takes less than a millisecond
// (BenchmarkCause). Most of it is reading what other versions and images have.
const (
	maxCauseMACs   = 320
	maxEachMode    = 32 // digests of the image, of SEV and of SEV-ES
	maxOtherOwn    = 64 // digests of the image's other versions, the newest first
	maxOtherImages = 32 // digests registered last
)

// cause says what the owner should look at after a measurement that fits no digest of the image: the mode, policy or API
// version under which one would fit, the other version or image that the machine was started from, or none of these. It is
// for the audit alone, and decides nothing.
func (s *Store) cause(ctx context.Context, about Standing, version int64, e *SEVEvidence) string {
	var known []explain.Known
	for _, mode := range []measure.Mode{measure.SEV, measure.SEVES} {
		list := digests(about.Record, mode)
		for _, d := range list[:min(len(list), maxEachMode)] {
			known = append(known, explain.Known{Digest: d, Mode: mode})
		}
	}
	own := len(known)
	others, err := s.otherDigests(ctx, about.Image, version)
	if err == nil { // without them the cause says less
		known = append(known, others...)
	}
	measured := explain.Measured{Measurement: e.Measurement, TIK: e.Session.TIK, Policy: e.Session.Policy, API: &e.API}
	defer clear(measured.TIK[:])
	found, _ := measured.Vary(known, own, maxCauseMACs)
	switch {
	case found == nil:
		return fmt.Sprintf("other firmware, other settings of the machine, another firmware API than %v, or another session: "+
			"none of the record's digests fits (sealboot explain searches firmware files)", e.API)
	case found.Known >= own:
		return "the digest is that of " + known[found.Known].About
	case found.Policy != e.Session.Policy:
		return fmt.Sprintf("the digest fits under policy %v, the session's is %v", found.Policy, e.Session.Policy)
	case found.API != e.API:
		return fmt.Sprintf("the digest fits with firmware API %v, the host claimed %v", found.API, e.API)
	}
	return fmt.Sprintf("the digest of mode %s fits, the policy is for mode %s", known[found.Known].Mode, about.Policy.SEV.Mode())
}

// keepDigests notes the digests of an image's version, so that a later refusal can name it.
func (t *transaction) keepDigests(name string, version int64, record *measure.Record) error {
	for _, d := range record.Digests {
		if _, err := t.exec(`INSERT INTO digests (image, version, digest, about) VALUES (?, ?, ?, ?)
			ON CONFLICT (image, version, digest) DO NOTHING`,
			name, version, []byte(d.Digest), explain.About(d.Launch)); err != nil {
			return err
		}
	}
	return nil
}

// reportReason says what the owner should look at after a report whose digest is none of the record's: the other version of the image that
// was started, or the search that may find the launch.
func (s *Store) reportReason(ctx context.Context, image string, version int64, launch []byte) string {
	var number int64
	var about string
	err := s.read.row(ctx, `SELECT version, about FROM digests WHERE image = ? AND digest = ? ORDER BY version DESC LIMIT 1`, image, launch).Scan(&number, &about)
	if err != nil { // none, or unknown: the reason says less
		return fmt.Sprintf("other firmware, or other settings of the machine, than were ever recorded for the image (sealboot explain --digest %x "+
			"searches firmware files)", launch)
	}
	return fmt.Sprintf("the digest is that of version %d of the image, %s; the image is at version %d", number, about, version)
}

// otherDigests gives what the image's other versions have, and what was registered last.
func (s *Store) otherDigests(ctx context.Context, image string, version int64) ([]explain.Known, error) {
	rows, err := s.read.rows(ctx, `
		SELECT image, version, digest, about FROM (SELECT * FROM digests WHERE image = ? AND version <> ? AND length(digest) = 32 ORDER BY version DESC LIMIT ?) AS own
		UNION ALL
		SELECT image, version, digest, about FROM (SELECT * FROM digests WHERE length(digest) = 32 ORDER BY seq DESC LIMIT ?) AS latest WHERE image <> ?`,
		image, version, maxOtherOwn, maxOtherImages, image)
	if err != nil {
		return nil, fmt.Errorf("read other digests: %w", err)
	}
	defer rows.Close()
	var list []explain.Known
	for rows.Next() {
		var name, about string
		var number int64
		var digest []byte
		if err := rows.Scan(&name, &number, &digest, &about); err != nil {
			return nil, fmt.Errorf("read other digests: %w", err)
		}
		if len(digest) != len(sev.Digest{}) {
			continue
		}
		list = append(list, explain.Known{Digest: sev.Digest(digest),
			About: fmt.Sprintf("version %d of image %s, %s; the image is %s, version %d", number, name, about, image, version)})
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read other digests: %w", err)
	}
	return list, nil
}
