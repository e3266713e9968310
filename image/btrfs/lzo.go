package btrfs

import "errors"

var errLZO = errors.New("damaged lzo")

// lzo decompresses LZO1X, as described in Linux, Documentation/staging/lzo.rst (bitstream version 0).
type lzo struct {
	in, out []byte // out has its whole length
	read    int
	written int
}

// unpackLZO1X decompresses to at most the room in out, and gives how much it was.
func unpackLZO1X(in, out []byte) (int, error) {
	z := &lzo{in: in, out: out}
	if err := z.run(); err != nil {
		return 0, err
	}
	return z.written, nil
}

func (z *lzo) next() (int, error) {
	if z.read >= len(z.in) {
		return 0, errLZO
	}
	z.read++
	return int(z.in[z.read-1]), nil
}

// long completes a length whose bits are all zero: each zero byte counts 255, the byte behind them ends it.
func (z *lzo) long(length, most int) (int, error) {
	if length > 0 {
		return length, nil
	}
	for length = most; length <= len(z.out)+most; length += 255 {
		b, err := z.next()
		if err != nil {
			return 0, err
		}
		if b > 0 {
			return length + b, nil
		}
	}
	return 0, errLZO
}

func (z *lzo) literals(n int) error {
	if n > len(z.in)-z.read || n > len(z.out)-z.written {
		return errLZO
	}
	copy(z.out[z.written:], z.in[z.read:z.read+n])
	z.read, z.written = z.read+n, z.written+n
	return nil
}

func (z *lzo) match(distance, length int) error {
	if distance > z.written || length > len(z.out)-z.written {
		return errLZO
	}
	for range length {
		z.out[z.written] = z.out[z.written-distance]
		z.written++
	}
	return nil
}

// run goes through the instructions. State is the number of literals that the last one copied, 4 for all from 4 on.
func (z *lzo) run() error {
	state := 0
	if len(z.in) > 0 && z.in[0] > 17 {
		n := int(z.in[0]) - 17
		z.read = 1
		if err := z.literals(n); err != nil {
			return err
		}
		state = min(n, 4)
	}
	for {
		t, err := z.next()
		if err != nil {
			return err
		}
		if t < 16 && state == 0 {
			n, err := z.long(t, 15)
			if err != nil {
				return err
			}
			if err := z.literals(n + 3); err != nil {
				return err
			}
			state = 4
			continue
		}
		distance, length, low, err := z.instruction(t, state)
		if err != nil {
			return err
		}
		if distance == 0 {
			if z.read != len(z.in) {
				return errLZO
			}
			return nil
		}
		if err := z.match(distance, length); err != nil {
			return err
		}
		state = low & 3
		if err := z.literals(state); err != nil {
			return err
		}
	}
}

// instruction decodes one that copies what was written before. low has in two bits how many literals follow; a distance of 0 is the end.
func (z *lzo) instruction(t, state int) (distance, length, low int, err error) {
	if t >= 16 && t < 64 {
		if t < 32 {
			length, err = z.long(t&7, 7)
		} else {
			length, err = z.long(t&31, 31)
		}
		if err != nil {
			return 0, 0, 0, err
		}
		a, err := z.next()
		if err != nil {
			return 0, 0, 0, err
		}
		b, err := z.next()
		if err != nil {
			return 0, 0, 0, err
		}
		low = b<<8 | a
		if t >= 32 {
			return low>>2 + 1, length + 2, low, nil
		}
		if distance = (t&8)<<11 | low>>2; distance == 0 {
			return 0, 0, 0, nil
		}
		return distance + 16384, length + 2, low, nil
	}
	high, err := z.next()
	if err != nil {
		return 0, 0, 0, err
	}
	switch {
	case t >= 128:
		return high<<3 + t>>2&7 + 1, t>>5&3 + 5, t, nil
	case t >= 64:
		return high<<3 + t>>2&7 + 1, t>>5&1 + 3, t, nil
	case state == 4:
		return high<<2 + t>>2 + 2049, 3, t, nil
	}
	return high<<2 + t>>2 + 1, 2, t, nil
}
