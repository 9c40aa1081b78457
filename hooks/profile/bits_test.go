package profile

import (
	"slices"
	"testing"
)

func TestOthers(t *testing.T) {
	for name, sets := range map[string][]bits{
		"none":         {},
		"everything":   {{}},
		"device types": {{0xf0, 0x20}, {0xf0, 0x60}},
		"overlapping":  {{0x0f, 0}, {0x3c, 0x0c}, {0x81, 0x80}},
		"one bit":      {{0x80, 0x80}},
		"both halves":  {{0x80, 0x80}, {0x80, 0}},
		"mounts":       {{0x1f, 0}, {0xf7, 0xd4}, {0x03, 0x01}, {0x23, 0x03}}, // the shape of agentMounts in fewer bits
	} {
		t.Run(name, func(t *testing.T) {
			left := others(sets)
			in := func(v uint64, sets []bits) bool {
				for _, b := range sets {
					if v&b.mask == b.value {
						return true
					}
				}
				return false
			}
			for v := uint64(0); v < 256; v++ {
				if in(v, sets) == in(v, left) {
					t.Errorf("%#x is in both or neither", v)
				}
			}
			for i := range left {
				if covered(left[i], slices.Delete(slices.Clone(left), i, i+1)) {
					t.Errorf("%v can be left out of %v", left[i], left)
				}
			}
			if name == "device types" && len(left) != 3 {
				t.Errorf("%d sets: %v", len(left), left)
			}
		})
	}
}

func TestCovered(t *testing.T) {
	for name, c := range map[string]struct {
		b    bits
		sets []bits
		want bool
	}{
		"nothing":        {bits{1, 1}, nil, false},
		"itself":         {bits{1, 1}, []bits{{1, 1}}, true},
		"two halves":     {bits{}, []bits{{4, 4}, {4, 0}}, true},
		"three quarters": {bits{}, []bits{{6, 0}, {6, 2}, {6, 4}}, false},
		"together":       {bits{9, 8}, []bits{{10, 8}, {3, 2}}, true},
		"all but one":    {bits{8, 8}, []bits{{10, 8}, {3, 2}}, false},
	} {
		if got := covered(c.b, c.sets); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
