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

// others gives sets that together hold exactly the values in none of the given ones. They may overlap each other. For S_IFCHR and S_IFBLK
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
	return out
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
