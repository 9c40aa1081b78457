package profile

import "testing"

func TestOthers(t *testing.T) {
	for name, sets := range map[string][]bits{
		"none":         {},
		"everything":   {{}},
		"device types": {{0xf0, 0x20}, {0xf0, 0x60}},
		"overlapping":  {{0x0f, 0}, {0x3c, 0x0c}, {0x81, 0x80}},
		"one bit":      {{0x80, 0x80}},
		"both halves":  {{0x80, 0x80}, {0x80, 0}},
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
			if name == "device types" && len(left) != 3 {
				t.Errorf("%d sets: %v", len(left), left)
			}
		})
	}
}
