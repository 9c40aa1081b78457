package emulators

import (
	"syscall"

	"github.com/callgate/callgate/pkg/tracee"
)

// Action says what a [Response] does.
type Action uint8

const (
	// ActionRefuse is the zero value's: EPERM.
	ActionRefuse Action = iota
	// ActionReturn gives the caller a value.
	ActionReturn
	// ActionFail gives the caller an errno.
	ActionFail
	// ActionFile gives the caller a descriptor, whose number the call returns.
	ActionFile
	// ActionContinue lets the kernel run the call as the caller.
	ActionContinue
)

// Response is the answer to one call. It is made by its constructors only; the
// zero value refuses with EPERM.
type Response struct {
	action  Action
	value   int64
	errno   syscall.Errno
	file    tracee.Handle
	cloexec bool
	detail  string
	after   func(delivered bool)
	kept    func()
	repeats func(*Request) bool
}

// Return makes the call return v, which must not be one of the values from
// -4095 to -1: those are errnos.
func Return(v int64) Response {
	if v < 0 && v >= -4095 {
		return Fail(syscall.Errno(-v))
	}
	return Response{action: ActionReturn, value: v}
}

// Fail makes the call fail with errno, the answer of a kernel that tried.
// Policy's answer is the error [Denied].
func Fail(errno syscall.Errno) Response {
	if errno == 0 {
		errno = syscall.EPERM
	}
	return Response{action: ActionFail, errno: errno}
}

// Explain adds what the log and the trace shall say besides the errno: the
// kernel's own words. It may hold the caller's text.
func (r Response) Explain(detail string) Response {
	r.detail = detail
	return r
}

// Detail is what [Response.Explain] was given.
func (r *Response) Detail() string { return r.detail }

// DescriptorFlags are those of a descriptor that is given to a caller.
type DescriptorFlags int

const (
	// KeepOnExec leaves the descriptor open across execve(2).
	KeepOnExec DescriptorFlags = iota
	// CloseOnExec closes it there (O_CLOEXEC).
	CloseOnExec
)

// ReturnFile puts f into the caller's descriptor table and makes the call
// return its number there, in one step. It takes ownership of f.
func ReturnFile(f tracee.Handle, flags DescriptorFlags) Response {
	return Response{action: ActionFile, file: f, cloexec: flags == CloseOnExec}
}

// Continue lets the kernel run the call as the caller, who may have changed
// its memory by then. It is right only where whatever the memory says then is
// no more than the caller may do by itself.
func Continue() Response { return Response{action: ActionContinue} }

// After has f called once the answer was given, or could not be (delivered
// false: a signal took the caller out of the call, and the call will be made
// anew). For a caller that was killed delivered is true: the kernel, too, would
// have finished the call, and what was done stands. It is the place to undo what nobody will learn of,
// and to let go of what the undoing needs. It runs on the thread that Emulate
// ran on, before the next call of this caller is looked at.
func (r Response) After(f func(delivered bool)) Response {
	r.after = f
	return r
}

// Repeating has same asked, if the answer could not be given, about the
// caller's next call with the same arguments: whether it is this call made
// anew and what was done for this one still stands. Then it gets this answer.
// Otherwise, and if it does not come soon, what [Response.After] was given
// runs with delivered false. kept runs first, at once: the moment to remember
// what exactly was done, and to copy what the request lent, which other calls
// use meanwhile. same reads what the arguments point to again. All run on the
// same thread.
func (r Response) Repeating(kept func(), same func(*Request) bool) Response {
	r.kept, r.repeats = kept, same
	return r
}

// Keep runs the first function that [Response.Repeating] was given.
func (r *Response) Keep() { r.kept() }

// Repeatable says whether [Response.Repeating] was given anything.
func (r *Response) Repeatable() bool { return r.repeats != nil }

// Repeats asks what [Response.Repeating] was given.
func (r *Response) Repeats(req *Request) bool { return r.repeats(req) }

// Undoable says whether something happens after the answer: see
// [Response.After].
func (r *Response) Undoable() bool { return r.after != nil }

// Action says which constructor made r.
func (r *Response) Action() Action { return r.action }

// Value is what [Return] was given.
func (r *Response) Value() int64 { return r.value }

// Errno is what [Fail] was given, EPERM for the zero value, 0 for a success.
func (r *Response) Errno() syscall.Errno {
	switch r.action {
	case ActionRefuse:
		return syscall.EPERM
	case ActionFail:
		return r.errno
	default:
		return 0
	}
}

// File lends what [ReturnFile] was given, and its flags.
func (r *Response) File() (*tracee.Handle, DescriptorFlags) {
	flags := KeepOnExec
	if r.cloexec {
		flags = CloseOnExec
	}
	return &r.file, flags
}

// Finish runs what [Response.After] was given and closes what the response
// owns. Dispatch calls it, once.
func (r *Response) Finish(delivered bool) {
	if f := r.after; f != nil {
		r.after = nil
		f(delivered)
	}
	r.file.Close()
}
