package config

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/callgate/callgate/emulators"
)

// fakeRule is "c 1:3", enough of a device rule to be refused.
type fakeRule struct{ text string }

func (r *fakeRule) UnmarshalText(text []byte) error {
	var major, minor int
	var kind rune
	if _, err := fmt.Sscanf(string(text), "%c %d:%d", &kind, &major, &minor); err != nil || (kind != 'c' && kind != 'b') {
		return errors.New("want TYPE MAJOR:MINOR, such as c 1:3")
	}
	r.text = string(text)
	return nil
}

type fakeMknod struct {
	Allow []fakeRule `yaml:"allow"`
}

type fakeMount struct {
	Allow []struct {
		Type    string            `yaml:"type,required"`
		Source  []string          `yaml:"source"`
		Options []string          `yaml:"options"`
		Shift   *bool             `yaml:"shift"`
		Depth   int8              `yaml:"depth" min:"1" max:"9"`
		Ratio   float64           `yaml:"ratio"`
		Wait    time.Duration     `yaml:"wait"`
		Env     map[string]string `yaml:"env"`
	} `yaml:"allow"`
	fakeCommon
}

// fakeCommon is embedded: its fields stand beside "allow".
type fakeCommon struct {
	Via fakeVia // by its Go name: "via"
}

type fakeVia struct {
	Program string
	Kernel  bool
}

func (v *fakeVia) Validate() error {
	if v.Program != "" && v.Kernel {
		return errors.New("want program or kernel, not both")
	}
	return nil
}

type fakeEmulator struct {
	policy any
	closed *int
}

func (fakeEmulator) Emulate(context.Context, *emulators.Request) (emulators.Response, error) {
	return emulators.Response{}, nil
}

func (e fakeEmulator) Close() error {
	if e.closed != nil {
		*e.closed++
	}
	return nil
}

// fakeKinds are four: mknod and mount decode their policies, plain never
// looks at its own, picky has an opinion of the whole.
func fakeKinds() []emulators.Kind {
	return []emulators.Kind{
		{Name: "mknod", Syscalls: []string{"mknod", "mknodat"}, New: func(p emulators.Policy) (emulators.Emulator, error) {
			policy := fakeMknod{Allow: []fakeRule{{text: "built-in"}}}
			if err := p.Decode(&policy); err != nil {
				return nil, fmt.Errorf("mknod: %w", err)
			}
			return fakeEmulator{policy: policy}, nil
		}},
		{Name: "mount", Syscalls: []string{"mount"}, New: func(p emulators.Policy) (emulators.Emulator, error) {
			var policy fakeMount
			if err := p.Decode(&policy); err != nil {
				return nil, err
			}
			return fakeEmulator{policy: policy}, nil
		}},
		{Name: "plain", Syscalls: []string{"sysinfo"}, New: func(emulators.Policy) (emulators.Emulator, error) {
			return fakeEmulator{}, nil
		}},
		{Name: "picky", Syscalls: []string{"bpf"}, New: func(p emulators.Policy) (emulators.Emulator, error) {
			var policy struct{ Program string }
			if err := p.Decode(&policy); err != nil {
				return nil, err
			}
			if policy.Program == "" {
				return nil, errors.New("no program\nwant one")
			}
			return fakeEmulator{policy: policy}, nil
		}},
	}
}

func mustParse(t testing.TB, text string) *Config {
	t.Helper()
	c, err := Parse("test.yaml", []byte(text), fakeKinds())
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	return c
}

// policyOf makes the emulators of a profile and returns what one kind decoded.
func policyOf[T any](t testing.TB, p *Profile, kind string) T {
	t.Helper()
	on, err := p.Emulators()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range on {
		if e.Kind.Name == kind {
			return e.Emulator.(fakeEmulator).policy.(T)
		}
	}
	t.Fatalf("profile %s: %s is off", p.Name, kind)
	panic("unreachable")
}

func indent(lines ...string) string { return strings.Join(lines, "\n") + "\n" }
