package config

import (
	"strings"
	"testing"
)

const selection = `
profiles: {default: {mknod: }, a: {mknod: }, b: {mknod: }, c: {mknod: }, d: {mknod: }}
select:
  - {metadata: m, uid: 7, profile: a}
  - {metadata: m, profile: b}
  - {annotation: "k=v=w", profile: c}
  - {annotation: "empty=", profile: d}
  - {uid: 0, annotation: "root=yes", metadata: "", profile: d}
  - {metadata: m2, profile: c}
  - {metadata: m2, profile: d}
`

func TestSelect(t *testing.T) {
	c := mustParse(t, selection)
	annotated := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for _, p := range pairs {
			k, v, _ := strings.Cut(p, "=")
			m[k] = v
		}
		return m
	}
	for _, tt := range []struct {
		name string
		r    Registration
		want string
	}{
		{"nothing known", Registration{}, "default"},
		{"both matchers", Registration{Metadata: "m", UID: 7}, "a"},
		{"one of two matchers", Registration{Metadata: "m", UID: 8}, "b"},
		{"the other of two", Registration{UID: 7}, "default"},
		{"first wins", Registration{Metadata: "m2"}, "c"},
		{"earlier wins over annotation", Registration{Metadata: "m", Annotations: annotated("k=v=w")}, "b"},
		{"value with an equals sign", Registration{Annotations: annotated("k=v=w")}, "c"},
		{"other value", Registration{Annotations: annotated("k=v")}, "default"},
		{"empty value there", Registration{Annotations: annotated("empty=")}, "d"},
		{"empty value absent", Registration{Annotations: annotated("other=")}, "default"},
		{"three matchers", Registration{Annotations: annotated("root=yes")}, "d"},
		{"three matchers, wrong metadata", Registration{Annotations: annotated("root=yes"), Metadata: "x"}, "default"},
		{"case counts", Registration{Metadata: "M"}, "default"},
		{"whole, not a prefix", Registration{Metadata: "m "}, "default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if have := c.ProfileFor(tt.r).Name; have != tt.want {
				t.Errorf("have %s, want %s", have, tt.want)
			}
		})
	}
}

// TestSelectNeverFallsThrough: a Config changed by hand must not give a
// container the default profile in place of the one chosen for it.
func TestSelectNeverFallsThrough(t *testing.T) {
	c := mustParse(t, selection)
	delete(c.Profiles, "b")
	if p := c.ProfileFor(Registration{Metadata: "m"}); p.Name != "b" || len(p.Policies) != 0 {
		t.Errorf("have %+v", p)
	}
}

func TestProfileByName(t *testing.T) {
	c := mustParse(t, "profiles: {builder: {mknod: }}\n")
	if p, err := c.Profile("builder"); err != nil || len(p.Policies) != 1 {
		t.Errorf("have %+v, %v", p, err)
	}
	for _, name := range []string{"", "default"} {
		if p, err := c.Profile(name); err != nil || p.Name != "default" || len(p.Policies) != 0 {
			t.Errorf("%q: have %+v, %v", name, p, err)
		}
	}
	_, err := c.Profile("bulder")
	if want := `no profile "bulder": did you mean "builder"? want builder`; err == nil || err.Error() != want {
		t.Errorf("have %v, want %s", err, want)
	}
}
