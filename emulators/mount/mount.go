// Package mount emulates mount(2) for filesystems that a user namespace may
// not mount by itself: it makes the mount with the agent's rights, from the
// device or the image that the caller's path leads to, with the container's
// ids, and puts it where the caller's path leads to, in the caller's mount
// namespace only.
package mount

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// Kind is the mount emulator's. Its policy is a list of what may be mounted:
//
//	mount:
//	  allow:
//	    - type: ext4
//	      source: ["b 7:*", "/dev/vg/*"]
//	      options: [noatime, "data=*"]
//
// README.md has all of it. Without allow nothing may be.
func Kind() emulators.Kind {
	shop := &workshop{}
	return emulators.Kind{
		Name:     "mount",
		Syscalls: []string{"mount"},
		New: func(p emulators.Policy) (emulators.Emulator, error) {
			e := &emulator{}
			if err := p.Decode(&e.policy); err != nil {
				return nil, err
			}
			e.bench = shop.bench()
			return e, nil
		},
	}
}

type emulator struct {
	policy policy
	bench  *bench
	made   made
	served served
}

// Close gives back what the container's mounts were made with. The mounts stay
// for as long as the container's mount namespaces do.
func (e *emulator) Close() error {
	e.bench.close()
	return nil
}

// Emulate makes or changes a mount. What the container may do by itself is left
// to the kernel.
func (e *emulator) Emulate(ctx context.Context, req *emulators.Request) (emulators.Response, error) {
	c := decode(req)
	switch c.operation() {
	case operationRemount:
		if req.Patience() == emulators.Hurry {
			return emulators.Response{}, emulators.ErrBlocks
		}
		return answer(e.remount(req, &c))
	case operationNew:
		return answer(e.mount(ctx, req, &c))
	default:
		return emulators.Continue(), nil
	}
}

// mount makes a new mount.
func (e *emulator) mount(ctx context.Context, req *emulators.Request, c *call) (emulators.Response, error) {
	given, err := c.fstype(req)
	if err != nil {
		return emulators.Response{}, err
	}
	rules := e.policy.ofType(given)
	if len(rules) == 0 {
		return e.unlisted(req, given)
	}
	if req.Patience() == emulators.Hurry {
		return emulators.Response{}, emulators.ErrBlocks
	}
	m := mounter{emulator: e, req: req, call: c, fstype: given}
	done := false
	defer func() {
		if !done { // also by a panic
			m.close()
		}
	}()
	resp, err := m.run(ctx, rules)
	done = err == nil
	return resp, err
}

// unlisted is the answer to a filesystem that policy does not name. The kernel
// has it: where the user namespace may mount it the caller may, and where not
// the kernel says what is wrong, a bad type or path included.
func (e *emulator) unlisted(req *emulators.Request, fstype string) (emulators.Response, error) {
	if fstype == "" || kernelsOwn[base(fstype)] {
		return emulators.Continue(), nil
	}
	var denied emulators.Denied
	err := req.Deny("policy allows no such filesystem type")
	if errors.As(err, &denied) {
		denied.Detail = fstype
		return emulators.Response{}, denied
	}
	return emulators.Response{}, err
}

// failure is the kernel's no, with what it said besides.
type failure struct {
	doing  string
	err    error
	detail string
}

func (f *failure) Error() string { return f.doing + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// answer makes the kernel's errno the caller's, and keeps what is not the
// kernel's verdict on the caller an error.
func answer(resp emulators.Response, err error) (emulators.Response, error) {
	if err == nil {
		return resp, nil
	}
	var errno syscall.Errno
	var argument emulators.BadArgument
	var denied emulators.Denied
	var failed *failure
	switch {
	case errors.As(err, &argument), errors.As(err, &denied):
	case errors.Is(err, emulators.ErrGone), errors.Is(err, emulators.ErrBlocks), errors.Is(err, tracee.ErrThread):
	case errors.As(err, &failed) && errors.As(failed.err, &errno):
		detail := failed.doing
		if failed.detail != "" {
			detail += ": " + failed.detail
		}
		return emulators.Fail(errno).Explain(detail), nil
	case errors.As(err, &errno) && verdicts[errno]:
		return emulators.Fail(errno), nil
	}
	return emulators.Response{}, fmt.Errorf("mount: %w", err)
}

// verdicts are the errnos that a lookup of the caller's paths may end with.
var verdicts = map[syscall.Errno]bool{
	unix.ENOENT: true, unix.ENOTDIR: true, unix.ELOOP: true, unix.ENAMETOOLONG: true, unix.EACCES: true,
	unix.ENOTBLK: true, unix.EIO: true, unix.ESTALE: true, unix.ENOMEM: true, unix.EXDEV: true,
}
