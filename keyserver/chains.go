package keyserver

import (
	"crypto/sha256"
	"encoding/hex"
	"sync"
	"sync/atomic"

	"github.com/sealboot/sealboot/keyserver/wire"
	"github.com/sealboot/sealboot/sev"
)

// maxChains bounds the verified chains that are remembered.
const maxChains = 1024

// platform is a machine whose chain was verified.
type platform struct {
	name string // product and the PDH's digest
	chip string // digest of the CEK's key
	pdh  *sev.Certificate
}

// chains verifies platforms' certificates and remembers those that held: the same bytes under the same roots
// hold again, for these certificates carry no dates. Chains that failed are not remembered.
type chains struct {
	roots sev.RootSet

	mu    sync.Mutex
	known map[[sha256.Size]byte]*platform
	order [][sha256.Size]byte // oldest first

	hits, misses atomic.Uint64
}

func newChains(roots sev.RootSet) *chains {
	return &chains{roots: roots, known: make(map[[sha256.Size]byte]*platform)}
}

// verify gives the platform that the request's certificates speak for.
func (c *chains) verify(r wire.SessionRequest) (*platform, *Refusal) {
	id := chainID(r)
	c.mu.Lock()
	p := c.known[id]
	c.mu.Unlock()
	if p != nil {
		c.hits.Add(1)
		return p, nil
	}
	c.misses.Add(1)
	chain, err := sev.ParseChain(r.PDH, r.CertChain, r.CA)
	if err != nil {
		return nil, refusef(wire.UntrustedPlatform, "read certificates: %w", err)
	}
	product, err := chain.Verify(c.roots)
	if err != nil {
		return nil, refusef(wire.UntrustedPlatform, "verify certificates: %w", err)
	}
	chip, err := chain.CEK.KeyDigest()
	if err != nil {
		return nil, refusef(wire.UntrustedPlatform, "name the chip: %w", err)
	}
	digest := sha256.Sum256(r.PDH)
	p = &platform{name: product + "/" + hex.EncodeToString(digest[:8]), chip: chip.String(), pdh: chain.PDH}
	c.remember(id, p)
	return p, nil
}

// chainID is a hash over the certificates: what joined gives, without a copy of it.
func chainID(r wire.SessionRequest) (id [sha256.Size]byte) {
	h := sha256.New()
	for _, part := range [][]byte{r.PDH, r.CertChain, r.CA} {
		h.Write(number(int64(len(part))))
		h.Write(part)
	}
	h.Sum(id[:0])
	return id
}

// counts tells how many chains were remembered, and how many not.
func (c *chains) counts() (hits, misses uint64) { return c.hits.Load(), c.misses.Load() }

func (c *chains) remember(id [sha256.Size]byte, p *platform) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.known[id] != nil {
		return
	}
	if len(c.order) == maxChains {
		delete(c.known, c.order[0])
		c.order = append(c.order[:0], c.order[1:]...)
	}
	c.known[id] = p
	c.order = append(c.order, id)
}
