package ext4

import (
	"fmt"
	"math"
)

// indirectTree makes the map of a file's blocks as file systems without extents have it.
type indirectTree struct {
	size int // of a block
	list []extent
	take func() (uint64, error) // gives a block for a node
	put  func(block uint64, raw []byte) error
}

func (t *indirectTree) build() (root [60]byte, err error) {
	next := uint64(0)
	for i := range directBlocks + 3 {
		levels := max(0, i-directBlocks+1)
		block, err := t.node(next, levels)
		if err != nil {
			return [60]byte{}, err
		}
		le.PutUint32(root[4*i:], block)
		next += t.covered(levels)
	}
	if len(t.list) > 0 {
		return [60]byte{}, fmt.Errorf("%w: a file of more than %d blocks, without extents", ErrTree, next)
	}
	return root, nil
}

// covered is how many blocks of content a node of so many levels leads to.
func (t *indirectTree) covered(levels int) uint64 {
	n := uint64(1)
	for range levels {
		n *= uint64(t.size / 4)
	}
	return n
}

// node makes the node for content from a block on, and gives its address: 0 where there is none.
func (t *indirectTree) node(logical uint64, levels int) (uint32, error) {
	covered := t.covered(levels)
	if len(t.list) == 0 || uint64(t.list[0].logical) >= logical+covered {
		return 0, nil
	}
	if levels == 0 {
		first := &t.list[0]
		block := first.start
		first.logical, first.start, first.length = first.logical+1, first.start+1, first.length-1
		if first.length == 0 {
			t.list = t.list[1:]
		}
		if block > math.MaxUint32 {
			return 0, fmt.Errorf("%w: block %d in a file without extents", ErrTree, block)
		}
		return uint32(block), nil
	}
	block, err := t.take()
	if err != nil {
		return 0, err
	}
	if block > math.MaxUint32 {
		return 0, fmt.Errorf("%w: block %d in a file without extents", ErrTree, block)
	}
	raw := make([]byte, t.size)
	for i := range t.size / 4 {
		child, err := t.node(logical+uint64(i)*t.covered(levels-1), levels-1)
		if err != nil {
			return 0, err
		}
		le.PutUint32(raw[4*i:], child)
	}
	return uint32(block), t.put(block, raw)
}
