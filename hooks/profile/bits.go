package profile

import "slices"

// bits is the set of the values v with v&mask == value: what one SCMP_CMP_MASKED_EQ can say.
type bits struct {
	mask  uint64
	value uint64
}

// intersect gives the values in both sets; false if there are none.
func (b bits) intersect(o bits) (bits, bool) {
	if (b.value^o.value)&b.mask&o.mask != 0 {
		return bits{}, false
	}
	return bits{b.mask | o.mask, b.value | o.value}, true
}

// contains tells whether all of o is in b.
func (b bits) contains(o bits) bool {
	return b.mask&^o.mask == 0 && (b.value^o.value)&b.mask == 0
}

// others gives sets that together hold exactly the values in none of the given ones. They may overlap each other, and none can be left out. For S_IFCHR and S_IFBLK
// these are three, not the fourteen remaining types: bit 15 set, bit 13 clear, bit 12 set.
func others(sets []bits) []bits {
	out := []bits{{}} // everything
	for _, set := range sets {
		var next []bits
		for _, have := range out {
			for bit := uint64(1) << 63; bit != 0; bit >>= 1 {
				if set.mask&bit == 0 {
					continue
				}
				differs := bits{bit, ^set.value & bit}
				if both, ok := have.intersect(differs); ok {
					next = append(next, both)
				}
			}
		}
		out = widest(next)
	}
	return needed(out)
}

// needed leaves out the sets that others cover together, keeping the order. A program tests set after set, so each costs time: "PRIVATE,
// and bit 31 is clear" and "SLAVE, and bit 31 is clear" are both inside "PRIVATE without SLAVE", "SLAVE without PRIVATE" and one of the two.
func needed(sets []bits) []bits {
	out := slices.Clone(sets)
	for i := 0; i < len(out); {
		if rest := slices.Delete(slices.Clone(out), i, i+1); covered(out[i], rest) {
			out = rest
		} else {
			i++
		}
	}
	return slices.Clip(out)
}

// covered tells whether every value of b is in one of the sets.
func covered(b bits, sets []bits) bool {
	for i, set := range sets {
		if set.contains(b) {
			return true
		}
		if _, ok := b.intersect(set); !ok {
			continue
		}
		// The part of b that is outside the set, cut into disjoint pieces, has to be in the sets that follow.
		inside := b
		for bit := uint64(1) << 63; bit != 0; bit >>= 1 {
			if set.mask&^inside.mask&bit == 0 {
				continue
			}
			if !covered(bits{inside.mask | bit, inside.value | ^set.value&bit}, sets[i+1:]) {
				return false
			}
			inside = bits{inside.mask | bit, inside.value | set.value&bit}
		}
		return true
	}
	return false
}

// widest leaves out the sets that are inside another one, keeping the order.
func widest(sets []bits) []bits {
	var out []bits
	for i, s := range sets {
		covered := false
		for j, o := range sets {
			if i != j && o.contains(s) && (o != s || j < i) {
				covered = true
				break
			}
		}
		if !covered {
			out = append(out, s)
		}
	}
	return slices.Clip(out)
}
