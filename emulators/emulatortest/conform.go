package emulatortest

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

// Options tell the suite how a kind is called.
type Options struct {
	// Policy allows what the calls do.
	Policy Policy
	// BadPolicies must be refused, beside those that the suite makes up.
	BadPolicies []Policy
	// Calls has one call that succeeds for each of the kind's system calls, or
	// more.
	Calls []Call
	// Done says whether the n-th call's effect is there, Undo takes it back.
	Done func(n int) bool
	Undo func(n int)
	// Idempotent says that a call that was carried out and not delivered may be
	// carried out again: it need not be undone.
	Idempotent bool
	// Threads gives the caller a thread to act on: for kinds that do something.
	// It needs root.
	Threads bool
}

// Call is a call that succeeds.
type Call struct {
	Syscall string
	// Args places what the call points to and gives its arguments. Calls with
	// different n do not get into each other's way.
	Args     func(c *Caller, n int) [6]uint64
	Pointers []Pointer
}

// Pointer describes an argument that points to something.
type Pointer struct {
	Index int
	// Size is that of what is there; 0 is a string.
	Size int
	// TooLong is a string's errno if it has no end: ENAMETOOLONG if 0.
	TooLong unix.Errno
	// Optional says that NULL is no fault.
	Optional bool
}

// check is one of the suite's. It reports through tb, which need not be a real
// test.
type check struct {
	name string
	run  func(s *suite)
}

func checks() []check {
	return []check{
		{"kind", (*suite).kindIsWhole},
		{"policy", (*suite).policyIsStrict},
		{"good call", (*suite).goodCall},
		{"pointers", (*suite).pointers},
		{"death", (*suite).death},
		{"not delivered", (*suite).notDelivered},
		{"hurry", (*suite).hurry},
		{"concurrent", (*suite).concurrent},
	}
}

// Conform runs the suite that every kind must pass:
//
//   - New accepts the policy, and refuses unknown fields and wrong types;
//   - the calls succeed, also with their arguments at the edge of a page;
//   - a pointer that is NULL, not mapped, cut off by the edge of a page, or a
//     string without an end fails as the kernel would have it, by
//     [emulators.BadArgument] for this argument or by the errno, and nothing is
//     done;
//   - a caller that dies at any of the first 20 checks gets nothing, and
//     nothing is done for it;
//   - what is not delivered is undone, unless it is idempotent;
//   - a call in a hurry is carried out or gives ErrBlocks with nothing done;
//   - many calls may run at once;
//   - no descriptor is left behind, and nothing panics.
func Conform(t *testing.T, kind emulators.Kind, o Options) {
	t.Helper()
	if o.Threads {
		NeedRoot(t)
	}
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) { runCheck(t, c, kind, o) })
	}
}

func runCheck(tb testing.TB, c check, kind emulators.Kind, o Options) {
	s := &suite{TB: tb, kind: kind, o: o}
	before := descriptors()
	c.run(s)
	for fd, target := range leaked(before) {
		tb.Errorf("descriptor %s was left open: %s", fd, target)
	}
}
