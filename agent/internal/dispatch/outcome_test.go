package dispatch

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/metrics"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

func TestJudge(t *testing.T) {
	denied := emulators.Denied{Reason: "why"}
	gone := fmt.Errorf("read path: %w", emulators.ErrGone)
	tests := []struct {
		name    string
		resp    emulators.Response
		err     error
		action  emulators.Action
		answer  syscall.Errno
		outcome metrics.Outcome
		errno   syscall.Errno // that the log has
		reason  string
		ours    bool // an error is told
	}{
		{"value", emulators.Return(3), nil, emulators.ActionReturn, 0, metrics.Answered, 0, "", false},
		{"errno", emulators.Fail(unix.EEXIST), nil, emulators.ActionFail, unix.EEXIST, metrics.Answered, unix.EEXIST, "", false},
		{"errno 0", emulators.Fail(0), nil, emulators.ActionFail, unix.EPERM, metrics.Answered, unix.EPERM, "", false},
		{"negative value", emulators.Return(-17), nil, emulators.ActionFail, unix.EEXIST, metrics.Answered, unix.EEXIST, "", false},
		{"continue", emulators.Continue(), nil, emulators.ActionContinue, 0, metrics.Continued, 0, "", false},
		{"zero", emulators.Response{}, nil, emulators.ActionRefuse, unix.EPERM, metrics.Denied, unix.EPERM, "emulator gave no answer", false},
		{"denied", emulators.Return(0), denied, emulators.ActionFail, unix.EPERM, metrics.Denied, unix.EPERM, "why", false},
		{"denied with errno", emulators.Response{}, emulators.Denied{Errno: unix.EACCES, Reason: "r"}, emulators.ActionFail, unix.EACCES, metrics.Denied, unix.EACCES, "r", false},
		{"denied by the kernel", emulators.Return(0), emulators.Denied{Reason: "r", ByKernel: true}, emulators.ActionContinue, 0, metrics.Denied, 0, "r", false},
		{"denied, wrapped", emulators.Continue(), fmt.Errorf("x: %w", denied), emulators.ActionFail, unix.EPERM, metrics.Denied, unix.EPERM, "why", false},
		{"argument", emulators.Return(0), emulators.BadArgument{Index: 1, Errno: unix.EFAULT}, emulators.ActionFail, unix.EFAULT, metrics.Invalid, unix.EFAULT, "", true},
		{"argument without errno", emulators.Return(0), emulators.BadArgument{}, emulators.ActionFail, unix.EPERM, metrics.Invalid, unix.EPERM, "", true},
		{"gone, wrapped", emulators.Return(0), gone, emulators.ActionFail, unix.EPERM, metrics.Gone, unix.EPERM, "", false},
		{"other", emulators.Return(0), io.ErrUnexpectedEOF, emulators.ActionFail, unix.EPERM, metrics.Failed, unix.EPERM, "", true},
		{"an errno is ours", emulators.Continue(), unix.ENOENT, emulators.ActionFail, unix.EPERM, metrics.Failed, unix.EPERM, "", true},
		{"blocks, though it may", emulators.Return(0), emulators.ErrBlocks, emulators.ActionFail, unix.EPERM, metrics.Failed, unix.EPERM, "", true},
		{"gone and other", emulators.Return(0), errors.Join(io.EOF, gone), emulators.ActionFail, unix.EPERM, metrics.Gone, unix.EPERM, "", false},
		{"denied and other", emulators.Return(0), errors.Join(io.EOF, denied), emulators.ActionFail, unix.EPERM, metrics.Denied, unix.EPERM, "why", false},
		{"kernel's denial and a thread lost", emulators.Return(0), errors.Join(emulators.Denied{ByKernel: true}, tracee.ErrThread), emulators.ActionContinue, 0, metrics.Denied, 0, "", false},
		{"argument and other", emulators.Return(0), errors.Join(emulators.BadArgument{Errno: unix.EBADF}, io.EOF), emulators.ActionFail, unix.EBADF, metrics.Invalid, unix.EBADF, "", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			resp := test.resp
			var out Outcome
			judge(&resp, test.err, &out)
			if resp.Action() != test.action || resp.Errno() != test.answer {
				t.Errorf("answer is %v, %v; want %v, %v", resp.Action(), resp.Errno(), test.action, test.answer)
			}
			if out.Outcome != test.outcome || out.Errno != test.errno || out.Reason != test.reason || (out.Err != nil) != test.ours {
				t.Errorf("outcome is %v, %v, %q, %v", out.Outcome, out.Errno, out.Reason, out.Err)
			}
		})
	}
}
