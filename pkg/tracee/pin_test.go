package tracee

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// TestNobody is a caller that has no number here: seccomp_notif.pid is 0.
func TestNobody(t *testing.T) {
	tr := own(t, alive)
	tr.Reset(0, alive)
	for name, read := range map[string]func() error{
		"Status":        func() error { _, err := tr.Status(); return err },
		"Root":          func() error { _, err := tr.Root(); return err },
		"UserNamespace": func() error { _, err := tr.UserNamespace(); return err },
		"File":          func() error { h, err := tr.File(0); h.Close(); return err },
	} {
		if err := read(); err == nil || errors.Is(err, ErrGone) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReusedNumber: a pin of a dead thread is not believed when its number
// comes again.
func TestReusedNumber(t *testing.T) {
	notifytest.NeedRoot(t)
	c := notifytest.Start(t, notifytest.Options{})
	_ = unix.Close(c.Listener)
	tr := own(t, alive)
	tr.Reset(c.TID, alive)
	if _, err := tr.Status(); err != nil {
		t.Fatal(err)
	}
	c.Kill()
	tr.Reset(c.TID, alive)
	if s, err := tr.Status(); err == nil {
		t.Errorf("dead: %+v", s)
	}
	// The dead one's number becomes ours.
	c = notifytest.Start(t, notifytest.Options{})
	_ = unix.Close(c.Listener)
	tr.Reset(c.TID, alive)
	if _, err := tr.Status(); err != nil {
		t.Fatal(err)
	}
	c.Kill()
	for i := range tr.pins.last {
		if tr.pins.last[i].tid == c.TID {
			tr.pins.last[i].tid = os.Getpid()
		}
	}
	tr.Reset(os.Getpid(), alive)
	s, err := tr.Status()
	if err != nil || s.TGID != os.Getpid() {
		t.Errorf("status %+v, %v", s, err)
	}
	if ns, err := tr.UserNamespace(); err != nil || ns.Ino == 0 {
		t.Errorf("user namespace %v, %v", ns, err)
	}
}

// TestPinsSeeChanges: what may change is read anew.
func TestPinsSeeChanges(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	c := notifytest.Start(t, notifytest.Options{})
	tr := own(t, alive)
	for _, id := range []uint32{1, 2, 3} {
		c.Do(t, unix.SYS_SETFSGID, uint64(id))
		tr.Reset(c.TID, alive)
		if s, err := tr.Status(); err != nil || s.FSGID != id {
			t.Errorf("fsgid %+v, %v, want %d", s, err, id)
		}
	}
	before, err := tr.UserNamespace()
	must(t, err)
	mine := own(t, alive)
	if ours, err := mine.UserNamespace(); err != nil || ours != before {
		t.Errorf("user namespaces %v, %v, %v", ours, before, err)
	}
	// More callers than there are pins.
	for range 3 * len(tr.pins.last) {
		child := notifytest.Start(t, notifytest.Options{})
		tr.Reset(child.TID, alive)
		if s, err := tr.Status(); err != nil || s.TGID != child.PID {
			t.Errorf("status %+v, %v", s, err)
		}
		_ = unix.Close(child.Listener)
		child.Kill()
	}
	_ = unix.Close(c.Listener)
}
