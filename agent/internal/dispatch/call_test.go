package dispatch

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

// one runs a call of an emulator and returns its only outcome.
func one(t *testing.T, e emulators.Emulator, want result) Outcome {
	t.Helper()
	s := newStage(t)
	c := newCaller(t)
	s.serve(s.container("c", e), c.listener)
	c.want(0, want)
	eventually(t, "outcome", func() bool { return len(s.told()) > 0 })
	told := s.told()
	if len(told) != 1 {
		t.Fatalf("%d outcomes, want 1: %+v", len(told), told)
	}
	o := told[0]
	if o.Container != "c" || o.Profile != "p" || o.Emulator != "test" || o.Syscall != "mknodat" || o.PID != c.tid {
		t.Errorf("outcome of something else: %+v", o)
	}
	return o
}

func TestAnswers(t *testing.T) {
	failing := errors.New("disk on fire")
	for _, test := range []struct {
		name    string
		resp    emulators.Response
		err     error
		want    result
		outcome metrics.Outcome
	}{
		{"value", emulators.Return(1 << 40), nil, result{value: 1 << 40}, metrics.Answered},
		{"errno", emulators.Fail(unix.EXDEV), nil, result{errno: unix.EXDEV}, metrics.Answered},
		{"nothing", emulators.Response{}, nil, result{errno: unix.EPERM}, metrics.Denied},
		{"denied", emulators.Return(0), emulators.Denied{Errno: unix.EACCES}, result{errno: unix.EACCES}, metrics.Denied},
		// mknodat(0, NULL, 0, 0) of this kernel.
		{"continue", emulators.Continue(), nil, result{errno: unix.EFAULT}, metrics.Continued},
		{"denied by the kernel", emulators.Response{}, emulators.Denied{ByKernel: true}, result{errno: unix.EFAULT}, metrics.Denied},
		{"argument", emulators.Return(0), emulators.BadArgument{Errno: unix.ENAMETOOLONG}, result{errno: unix.ENAMETOOLONG}, metrics.Invalid},
		{"failed", emulators.Return(0), failing, result{errno: unix.EPERM}, metrics.Failed},
		// A caller that waits is answered, whatever the emulator takes it for.
		{"gone, but it waits", emulators.Return(0), emulators.ErrGone, result{errno: unix.EPERM}, metrics.Failed},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := one(t, emulator(func(context.Context, *emulators.Request) (emulators.Response, error) {
				return test.resp, test.err
			}), test.want)
			if o.Outcome != test.outcome {
				t.Errorf("outcome %v, want %v: %+v", o.Outcome, test.outcome, o)
			}
		})
	}
}

// TestOff: a kind that the profile does not name. The caller is in the agent's
// user namespace, so the kernel is not asked.
func TestOff(t *testing.T) {
	o := one(t, nil, result{errno: unix.EPERM})
	if o.Outcome != metrics.Denied || o.Reason == "" {
		t.Errorf("outcome %+v, want denied with a reason", o)
	}
}

func TestPanic(t *testing.T) {
	s := newStage(t)
	var n atomic.Int32
	c := newCaller(t)
	s.serve(s.container("c", emulator(func(context.Context, *emulators.Request) (emulators.Response, error) {
		switch n.Add(1) {
		case 1:
			panic("in Emulate")
		case 2:
			return emulators.Return(5).After(func(bool) { panic("in After") }), nil
		case 3:
			return emulators.Return(6).After(func(bool) { panic("in After") }), errors.New("and an error")
		}
		return emulators.Return(7), nil
	})), c.listener)
	c.want(0, result{errno: unix.EPERM})
	c.want(0, result{value: 5}) // its answer was given by then
	c.want(0, result{errno: unix.EPERM})
	c.want(0, result{value: 7})
	eventually(t, "outcomes", func() bool { return len(s.told()) == 4 })
	for i, want := range []metrics.Outcome{metrics.Failed, metrics.Failed, metrics.Failed, metrics.Answered} {
		if o := s.told()[i]; o.Outcome != want || (o.Err != nil) != (want == metrics.Failed) {
			t.Errorf("call %d: %v, %v; want %v", i, o.Outcome, o.Err, want)
		}
	}
}

// TestPanicWorker: the same where the call is on a worker.
func TestPanicWorker(t *testing.T) {
	s := newStage(t)
	c := newCaller(t)
	s.serve(s.container("c", emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
		if req.Patience() == emulators.Hurry {
			return emulators.Response{}.After(func(bool) { panic("in a hurry") }), emulators.ErrBlocks
		}
		panic("patiently")
	})), c.listener)
	c.want(0, result{errno: unix.EPERM})
	c.want(0, result{errno: unix.EPERM})
}

// TestBlocks: what could block runs again on a worker, with a deadline.
func TestBlocks(t *testing.T) {
	var threads [2]atomic.Int64
	var after atomic.Int32
	o := one(t, emulator(func(ctx context.Context, req *emulators.Request) (emulators.Response, error) {
		threads[req.Patience()].Store(int64(unix.Gettid()))
		resp := emulators.Return(9).After(func(delivered bool) {
			if !delivered {
				after.Add(1)
			}
		})
		if req.Patience() == emulators.Hurry {
			return resp, emulators.ErrBlocks
		}
		if _, limited := ctx.Deadline(); !limited {
			return resp, errors.New("no deadline")
		}
		return resp, nil
	}), result{value: 9})
	if o.Outcome != metrics.Answered {
		t.Errorf("outcome %+v", o)
	}
	if hurry, patient := threads[0].Load(), threads[1].Load(); hurry == 0 || patient == 0 || hurry == patient {
		t.Errorf("ran on thread %d in a hurry and %d patiently", hurry, patient)
	}
	if after.Load() != 1 {
		t.Errorf("%d responses undone, want that of the hurry", after.Load())
	}
}

// TestFile: the caller gets a descriptor, in its own table.
func TestFile(t *testing.T) {
	for flags, want := range map[emulators.DescriptorFlags]int64{
		emulators.CloseOnExec: unix.FD_CLOEXEC,
		emulators.KeepOnExec:  0,
	} {
		s := newStage(t)
		child := notifytest.Start(t, notifytest.Options{})
		s.serve(s.container("c", files0(flags)), child.Listener)
		fd := child.Do(t, unix.SYS_MKNODAT)
		got := child.Do(t, unix.SYS_FCNTL, uint64(fd), unix.F_GETFD)
		if got != want {
			t.Errorf("flags of the descriptor are %#x, want %#x", got, want)
		}
		addr := child.Put(t, 0, "....")
		if n := child.Do(t, unix.SYS_READ, uint64(fd), addr, 4); n != 4 {
			t.Errorf("read of the descriptor gave %d", n)
		}
	}
}

// files0 gives /dev/zero.
func files0(flags emulators.DescriptorFlags) emulator {
	return func(context.Context, *emulators.Request) (emulators.Response, error) {
		fd, err := unix.Open("/dev/zero", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return emulators.Response{}, &os.PathError{Op: "open", Path: "/dev/zero", Err: err}
		}
		return emulators.ReturnFile(tracee.NewHandle(fd), flags), nil
	}
}

// TestFileNoRoom: a caller whose descriptor table is full gets the errno of
// open(2), and not no answer at all.
func TestFileNoRoom(t *testing.T) {
	s := newStage(t)
	child := notifytest.Start(t, notifytest.Options{})
	s.serve(s.container("c", files0(emulators.KeepOnExec)), child.Listener)
	must(t, unix.Prlimit(child.PID, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: 0}, nil))
	child.Go(t, unix.SYS_MKNODAT)
	if _, errno := child.Result(t); errno != unix.EMFILE {
		t.Errorf("%v, want EMFILE", errno)
	}
}

// TestErrorWithFile: what comes with an error is closed, not given.
func TestErrorWithFile(t *testing.T) {
	give := files0(emulators.KeepOnExec)
	one(t, emulator(func(ctx context.Context, req *emulators.Request) (emulators.Response, error) {
		resp, err := give(ctx, req)
		return resp, errors.Join(err, emulators.Denied{Reason: "on second thoughts"})
	}), result{errno: unix.EPERM})
	give2 := files0(emulators.KeepOnExec)
	one(t, emulator(func(ctx context.Context, req *emulators.Request) (emulators.Response, error) {
		resp, err := give2(ctx, req)
		return resp.After(func(bool) { panic("before the file is closed") }), errors.Join(err, errors.New("failed"))
	}), result{errno: unix.EPERM})
}

// TestAnchor: where the runtime could not say which user namespace is the
// container's, the first call finds it, once, on a worker.
func TestAnchor(t *testing.T) {
	var asked atomic.Int32
	s := newStage(t, func(o *Options) {
		found := o.Anchor
		o.Anchor = func(c *tracee.Tracee) (ns pidfd.NSID, err error) {
			if asked.Add(1) == 1 {
				return ns, emulators.Denied{Reason: "not yet"}
			}
			return found(c)
		}
	})
	c := newCaller(t)
	container := s.NewContainer(ContainerConfig{ID: "c", Emulators: map[string]emulators.Emulator{
		"test": emulator(func(_ context.Context, req *emulators.Request) (emulators.Response, error) {
			if req.Container().UserNamespace != s.host {
				return emulators.Response{}, errors.New("another namespace")
			}
			return emulators.Return(1), nil
		}),
	}})
	s.serve(container, c.listener)
	c.want(0, result{errno: unix.EPERM})
	for range 3 {
		c.want(0, result{value: 1})
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, want 2", n)
	}
}
