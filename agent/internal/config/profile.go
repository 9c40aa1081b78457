package config

import (
	"errors"
	"fmt"
	"io"

	"github.com/callgate/callgate/emulators"
)

// Profile is what one group of containers may do. It is never changed after
// Parse, and any number of sessions may use it at once.
type Profile struct {
	Name string
	// Policies are the kinds that are on, in the order in which the caller
	// of Parse listed them. A kind that is not here is off.
	Policies []KindPolicy
}

// KindPolicy is a kind with its part of a profile.
type KindPolicy struct {
	Kind   emulators.Kind
	Policy emulators.Policy
}

// Enabled is a kind that is on, with the emulator of one container.
type Enabled struct {
	Kind     emulators.Kind
	Emulator emulators.Emulator
}

// Kinds are the kinds that are on: their Syscalls are what a seccomp filter
// for this profile has to stop.
func (p *Profile) Kinds() []emulators.Kind {
	kinds := make([]emulators.Kind, len(p.Policies))
	for i, on := range p.Policies {
		kinds[i] = on.Kind
	}
	return kinds
}

// Emulators makes the emulators of one container, which the caller owns: one
// that is an io.Closer wants to be closed with the container. Since Parse made
// each of them once, an error here is the host's rather than the file's.
func (p *Profile) Emulators() ([]Enabled, error) {
	on := make([]Enabled, 0, len(p.Policies))
	for _, kp := range p.Policies {
		emulator, err := kp.Kind.New(kp.Policy)
		if err != nil {
			for _, made := range on {
				discard(made.Emulator)
			}
			return nil, fmt.Errorf("make emulator %s of profile %s: %w", kp.Kind.Name, quote(p.Name), err)
		}
		on = append(on, Enabled{Kind: kp.Kind, Emulator: emulator})
	}
	return on, nil
}

func discard(e emulators.Emulator) {
	if c, ok := e.(io.Closer); ok {
		_ = c.Close() // made to see whether it can be; nothing was done with it
	}
}

// tryKind makes one emulator of a policy and reports what its kind does not
// like, inside the policy where the kind's Decode found it.
func tryKind(kind emulators.Kind, p policy, r *report) {
	w := &watched{policy: p}
	emulator, err := kind.New(w)
	if err == nil {
		if emulator != nil {
			discard(emulator)
		}
		if !w.decoded && len(p.n.keys) > 0 {
			r.add(p.n.keys[0], p.path, "the kind has no settings, want nothing or {}")
		}
		return
	}
	var inside *Errors
	if errors.As(err, &inside) {
		r.list = append(r.list, inside.List...)
		r.more += inside.More
		return
	}
	r.add(p.n, p.path, "%s", err.Error()).Err = err
}
