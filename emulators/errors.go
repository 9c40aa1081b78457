package emulators

import (
	"fmt"
	"syscall"

	"github.com/callgate/callgate/pkg/tracee"
)

// ErrGone says that nobody waits for the answer any more.
var ErrGone = tracee.ErrGone

// ErrBlocks says that the call could put the thread to sleep. Dispatch runs it
// again where that harms nobody; nothing may have been done yet.
var ErrBlocks = tracee.ErrBlocks

// Denied is policy's no.
type Denied struct {
	Errno  syscall.Errno // what the caller gets; EPERM if 0
	Reason string        // what the log says; no text of the caller's
	Detail string        // what it is about; may be the caller's text
	// ByKernel leaves it to the kernel to refuse, with the errno that it would
	// have given: it looks at the arguments first. Only for a call that the
	// caller's own rights do not suffice for, whatever it changes meanwhile.
	ByKernel bool
}

// Error says why.
func (d Denied) Error() string { return "denied: " + d.Reason }

// BadArgument is the caller's fault.
type BadArgument struct {
	Index int // which argument, from 0
	Errno syscall.Errno
}

// Error names the argument.
func (b BadArgument) Error() string {
	return fmt.Sprintf("argument %d: %v", b.Index, b.Errno)
}

// Unwrap gives the errno to errors.Is.
func (b BadArgument) Unwrap() error { return b.Errno }
