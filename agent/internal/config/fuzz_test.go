package config

import (
	"errors"
	"strings"
	"testing"
)

// FuzzParse: no text crashes or hangs, and what comes out is one of the two.
func FuzzParse(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(selection))
	f.Add([]byte("a: &a [*a, *a]\n<<: *a\n? [x]\n: !!str y\n"))
	f.Add([]byte("profiles:\n  default:\n    mount:\n      allow: [{type: x, depth: -0x8, wait: 1h, ratio: 1e309}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := Parse("fuzz.yaml", data, fakeKinds())
		if (c == nil) == (err == nil) {
			t.Fatalf("have %v and %v", c, err)
		}
		if err != nil {
			var all *Errors
			if !errors.As(err, &all) {
				t.Fatalf("have %T", err)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) > maxErrors+1 {
				t.Errorf("have %d lines", len(lines))
			}
			for _, line := range lines {
				if !strings.HasPrefix(line, "fuzz.yaml:") {
					t.Errorf("have line %q", line)
				}
			}
			if strings.Contains(err.Error(), "the YAML parser stopped") {
				t.Logf("library: %v", err)
			}
			return
		}
		for name, p := range c.Profiles {
			if name != p.Name {
				t.Errorf("profile %q is named %q", name, p.Name)
			}
			if _, err := p.Emulators(); err != nil {
				t.Errorf("Parse let it through: %v", err)
			}
		}
		for _, s := range c.Select {
			if c.Profiles[s.Profile] == nil {
				t.Errorf("selector for absent %q", s.Profile)
			}
		}
	})
}
