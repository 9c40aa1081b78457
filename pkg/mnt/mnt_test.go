package mnt

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

func mountsOfHost(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	return string(text)
}

// TestSeal: flags of a sealed mount cannot be cleared by anybody, others can;
// those of a mount that was not sealed can. The host sees nothing of it.
func TestSeal(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	before := mountsOfHost(t)
	room, err := OpenRoom()
	must(t, err)
	defer room.Close()
	sealer, err := OpenSealer(room)
	must(t, err)
	defer sealer.Close()
	onThread(t, func(thread *tracee.Thread) {
		plain := tree(t, forced)
		if err := thread.Privileged(func() error { return Attributes{Clear: unix.MOUNT_ATTR_NODEV}.Change(&plain) }); err != nil {
			t.Errorf("a plain mount's flag: %v", err)
		}
		plain.Close()

		given := tree(t, forced)
		var sealed tracee.Handle
		err := sealer.Enter(thread, func() (err error) {
			sealed, err = sealer.Seal(&given)
			return err
		})
		given.Close()
		if err != nil {
			t.Error(err)
			return
		}
		defer sealed.Close()
		for _, flag := range []uint64{unix.MOUNT_ATTR_NOSUID, unix.MOUNT_ATTR_NODEV} {
			err := thread.Privileged(func() error { return Attributes{Clear: flag}.Change(&sealed) })
			if !errors.Is(err, unix.EPERM) {
				t.Errorf("clear locked flag %#x: %v, want EPERM", flag, err)
			}
		}
		err = thread.Privileged(func() error {
			change := Attributes{Set: unix.MOUNT_ATTR_RDONLY}
			if err := change.Change(&sealed); err != nil {
				return err
			}
			change.Set, change.Clear = 0, change.Set
			return change.Change(&sealed)
		})
		if err != nil {
			t.Errorf("a flag that is not locked: %v", err)
		}
		if err := unix.Mkdirat(sealed.FD(), "d", 0o755); err != nil {
			t.Errorf("use the sealed mount: %v", err)
		}
		if err := os.ErrExist; !errors.Is(unix.Mkdirat(sealed.FD(), "d", 0o755), err) {
			t.Error("the directory is not there")
		}
	})
	if after := mountsOfHost(t); after != before {
		t.Errorf("the host's mounts are now\n%s", after)
	}
}

// TestSealLeavesNothing: what was sealed and closed is not mounted anywhere.
func TestSealLeavesNothing(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	room, err := OpenRoom()
	must(t, err)
	defer room.Close()
	sealer, err := OpenSealer(room)
	must(t, err)
	defer sealer.Close()
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(proc)
	onThread(t, func(thread *tracee.Thread) {
		for range 10 {
			given := tree(t, forced)
			var sealed tracee.Handle
			err := sealer.Enter(thread, func() (err error) {
				sealed, err = sealer.Seal(&given)
				return err
			})
			given.Close()
			if err != nil {
				t.Error(err)
				return
			}
			sealed.Close()
		}
		for name, ns := range map[string]*tracee.Handle{"upper": &room.ns, "lower": &sealer.lower.ns} {
			err := thread.InMounts(ns, func() error {
				fd, err := unix.Openat(proc, "thread-self/mounts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return err
				}
				f := os.NewFile(uintptr(fd), "mounts")
				defer f.Close()
				var buf [4096]byte
				n, err := f.Read(buf[:])
				if lines := strings.Count(string(buf[:n]), "\n"); lines != 1 {
					t.Errorf("%s: want one mount, there are\n%s", name, buf[:n])
				}
				return err
			})
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
}

// TestMessages: the kernel says what it does not like.
func TestMessages(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	fs, err := New("tmpfs")
	must(t, err)
	defer fs.Close()
	if err := fs.SetString("nosuchoption", "1"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("unknown option: %v, want EINVAL", err)
	}
	if got := fs.Messages(); !strings.Contains(got, "nosuchoption") || strings.HasPrefix(got, "e ") {
		t.Errorf("messages %q", got)
	}
	if got := fs.Messages(); got != "" {
		t.Errorf("the same messages again: %q", got)
	}
	if _, err := New("nosuchfs"); !errors.Is(err, unix.ENODEV) {
		t.Errorf("unknown type: %v, want ENODEV", err)
	}
}
