// Package emulators is the contract between callgate's agent and the code that
// carries out one family of system calls.
//
// An emulator sees a [Request] (the stopped caller and its arguments) and
// gives a [Response]. It holds no reference to dispatch, to the listener, to
// the configuration or to metrics: those stand around it, once. README.md in
// this folder teaches how to write one.
package emulators

import (
	"context"
	"fmt"
)

// Emulator carries out the calls of one [Kind] for one container.
type Emulator interface {
	// Emulate answers one call. It is called concurrently, each call on a
	// locked OS thread of its own whose credentials, umask, root and working
	// directory it may change only through [Request.Thread]. The request and
	// everything taken from it are dead once Emulate has returned and what it
	// gave to [Response.After] has run.
	//
	// An error never allows: dispatch turns [Denied] and [BadArgument] into
	// their errnos, [ErrGone] into no answer, [ErrBlocks] into a second run
	// where blocking is allowed, and everything else into EPERM and an error
	// line in the log.
	Emulate(ctx context.Context, req *Request) (Response, error)
}

// Kind is a family of system calls with one policy: what a profile of the
// configuration names.
type Kind struct {
	// Name is the configuration key, the log field and the metric label.
	Name string
	// Syscalls are the calls it claims, by the kernel's names. Two kinds may
	// not claim one.
	Syscalls []string
	// New makes the emulator of one container. It rejects unknown fields and
	// says which, and where. If the emulator is an [io.Closer] it is closed
	// when the container is gone and its last call is answered.
	New func(policy Policy) (Emulator, error)
}

// Policy is one kind's part of a profile, not yet decoded.
type Policy interface {
	// Decode fills into, a pointer to a struct, strictly: an unknown field, a
	// wrong type and a value that its UnmarshalText refuses are errors that
	// name the line, the field and what was expected.
	Decode(into any) error
}

// Overlap returns an error that names the call which two kinds claim, or the
// name which two kinds bear.
func Overlap(kinds []Kind) error {
	names := make(map[string]bool, len(kinds))
	owner := make(map[string]string)
	for _, k := range kinds {
		if names[k.Name] {
			return fmt.Errorf("two kinds are named %q", k.Name)
		}
		names[k.Name] = true
		for _, call := range k.Syscalls {
			if other, taken := owner[call]; taken {
				return fmt.Errorf("kinds %q and %q both claim %s", other, k.Name, call)
			}
			owner[call] = k.Name
		}
	}
	return nil
}
