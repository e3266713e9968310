package explain

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/sealboot/sealboot/sev"
)

// hit is a candidate that fits.
type hit struct {
	setup, vcpus int
	digest       []byte
}

// search tries every setup, on all cores.
func (q Query) search(ctx context.Context, a *Answer) error {
	x := q.axes()
	var list []setup
	for i := range x.sources {
		list = append(list, x.setups(i, q.MaxVCPUs)...)
	}
	x.tell(q, a)
	if q.Measured == nil || q.Measured.API != nil {
		if err := q.searchAll(ctx, a, x, list); err != nil {
			return err
		}
	}
	if q.Measured != nil && !a.Explained {
		q.varyFirmware(a, x, list)
	}
	x.tellUnread(q, a)
	return nil
}

// searchAll compares every candidate.
func (q Query) searchAll(ctx context.Context, a *Answer, x axes, list []setup) error {
	workers := q.Workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var next, tried atomic.Int64
	var mu sync.Mutex
	var hits []hit
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			count := int64(0)
			defer func() { tried.Add(count) }()
			fits, done := q.comparison()
			defer done()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(list) {
					return
				}
				s := list[i]
				f, err := x.sources[s.source].series()
				if err != nil {
					continue // told by search
				}
				f.Each(s.spec, s.hashes.table, func(vcpus int, digest []byte) { // an error is a launch that this firmware cannot have
					count++
					if fits(digest) {
						mu.Lock()
						hits = append(hits, hit{i, vcpus, bytes.Clone(digest)})
						mu.Unlock()
					}
				})
			}
		})
	}
	wait.Wait()
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("search: %w", err)
	}
	a.Tried.Candidates += tried.Load()
	q.choose(a, x, list, hits)
	return nil
}

// comparison gives a function that says whether a digest fits, and one that wipes its keys.
func (q Query) comparison() (fits func([]byte) bool, done func()) {
	m := q.Measured
	if m == nil {
		return func(digest []byte) bool { return bytes.Equal(digest, q.Digest) }, func() {}
	}
	keys := &sev.Session{Policy: m.Policy, TIK: m.TIK}
	return func(digest []byte) bool {
		return len(digest) == len(sev.Digest{}) && m.fits(keys, *m.API, sev.Digest(digest))
	}, keys.Wipe
}

// choose takes the fit that differs least, and of equals the first in the order of the search.
func (q Query) choose(a *Answer, x axes, list []setup, hits []hit) {
	slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(cmp.Compare(a.setup, b.setup), cmp.Compare(a.vcpus, b.vcpus)) })
	best := -1
	for _, h := range hits {
		fit := q.fit(x, list[h.setup], h)
		differences, weight := q.nearest(fit)
		if best < 0 || weight < best {
			best, a.Explained, a.Fit, a.Differences = weight, true, fit, differences
		}
	}
}

func (q Query) fit(x axes, s setup, h hit) *Fit {
	from := x.sources[s.source]
	f := &Fit{
		Mode: s.spec.Mode, Firmware: q.Firmware[from.firmware].Name, FirmwareSHA256: sha256.Sum256(q.Firmware[from.firmware].Data), VCPUs: h.vcpus,
		VMM: s.spec.VMM, GuestFeatures: s.spec.GuestFeatures, OldHostKernel: s.spec.OldHostKernel, X87Unset: s.spec.X87Unset,
		KernelHashes: s.hashes.table != nil, HasInitrd: s.hashes.initrd, Digest: h.digest, hashes: s.hashes, signature: s.spec.VCPUSignature,
	}
	if from.svsm >= 0 {
		sum := sha256.Sum256(q.SVSM[from.svsm].Data)
		f.SVSM, f.SVSMSHA256, f.VarsSize = q.SVSM[from.svsm].Name, sum[:], from.varsSize
	}
	if f.VCPUType = x.names[s.spec.VCPUSignature]; f.VCPUType == "" {
		f.VCPUSignature = s.spec.VCPUSignature
	}
	f.Profile = f.profile()
	if f.KernelHashes {
		f.CommandLine = &s.hashes.cmdline
	}
	if m := q.Measured; m != nil && m.API != nil {
		f.Policy, f.API = m.Policy.String(), m.API.String()
	}
	return f
}
