package emulators_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

func TestResponse(t *testing.T) {
	for name, c := range map[string]struct {
		resp   emulators.Response
		action emulators.Action
		value  int64
		errno  unix.Errno
	}{
		"zero":                 {emulators.Response{}, emulators.ActionRefuse, 0, unix.EPERM},
		"return":               {emulators.Return(7), emulators.ActionReturn, 7, 0},
		"return an errno":      {emulators.Return(-int64(unix.ENOENT)), emulators.ActionFail, 0, unix.ENOENT},
		"return the last one":  {emulators.Return(-4095), emulators.ActionFail, 0, 4095},
		"return below them":    {emulators.Return(-4096), emulators.ActionReturn, -4096, 0},
		"fail":                 {emulators.Fail(unix.EROFS), emulators.ActionFail, 0, unix.EROFS},
		"fail without errno":   {emulators.Fail(0), emulators.ActionFail, 0, unix.EPERM},
		"continue":             {emulators.Continue(), emulators.ActionContinue, 0, 0},
		"file":                 {emulators.ReturnFile(tracee.Handle{}, emulators.CloseOnExec), emulators.ActionFile, 0, 0},
		"with something after": {emulators.Return(1).After(func(bool) {}), emulators.ActionReturn, 1, 0},
	} {
		if c.resp.Action() != c.action || c.resp.Value() != c.value || c.resp.Errno() != c.errno {
			t.Errorf("%s: %d, %d, %v", name, c.resp.Action(), c.resp.Value(), c.resp.Errno())
		}
	}
}

func TestFinish(t *testing.T) {
	fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var calls []bool
	r := emulators.ReturnFile(tracee.NewHandle(fd), emulators.KeepOnExec).After(func(delivered bool) { calls = append(calls, delivered) })
	r.Finish(true)
	r.Finish(false) // does nothing
	if len(calls) != 1 || !calls[0] {
		t.Errorf("After ran %v", calls)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the file is still open (%v)", err)
	}
}

func TestOverlap(t *testing.T) {
	a := emulators.Kind{Name: "a", Syscalls: []string{"x", "y"}}
	for want, kinds := range map[string][]emulators.Kind{
		"":                     {a, {Name: "b", Syscalls: []string{"z"}}},
		`both claim y`:         {a, {Name: "b", Syscalls: []string{"y"}}},
		`two kinds are named`:  {a, {Name: "a", Syscalls: []string{"z"}}},
		`"a" and "a" both cla`: {{Name: "a", Syscalls: []string{"x", "x"}}},
	} {
		err := emulators.Overlap(kinds)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
