package tracee

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestAs(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	root := tree(t, "open/", "group/", "closed/")
	must(t, os.Chmod(root+"/open", 0o777))
	must(t, os.Chown(root+"/group", 0, 4000))
	must(t, os.Chmod(root+"/group", 0o070))
	must(t, os.Chmod(root+"/closed", 0o700))
	before := threadStatus(t, os.Getpid())
	must(t, os.Chmod(root+"/..", 0o755)) // t.TempDir's parent is root's alone
	onThread(t, func(th *Thread) {
		tid := unix.Gettid()
		full := threadStatus(t, tid)["CapEff"]
		mknod := func(name string) func() error {
			return func() error { return unix.Mknod(root+name, unix.S_IFREG|0o666, 0) }
		}
		id := Identity{FSUID: 1001, FSGID: 1002, Groups: []uint32{4000, 5000}, Umask: 0o027}
		must(t, th.As(&id, 0, func() error {
			now := threadStatus(t, tid)
			if now["Uid"] != "0 0 0 1001" || now["Gid"] != "0 0 0 1002" || now["Groups"] != "4000 5000" || now["Umask"] != "0027" || now["CapEff"] != fmt.Sprintf("%016x", uint64(standing)) {
				t.Errorf("as the caller: %v", now)
			}
			// The other threads of this program are not touched.
			leader := threadStatus(t, os.Getpid())
			for _, key := range []string{"Uid", "Gid", "Groups", "Umask", "CapEff"} {
				if leader[key] != before[key] {
					t.Errorf("%s of the leader is %s, was %s", key, leader[key], before[key])
				}
			}
			return mknod("/open/file")()
		}))
		var st unix.Stat_t
		must(t, unix.Stat(root+"/open/file", &st))
		if st.Uid != 1001 || st.Gid != 1002 || st.Mode&0o7777 != 0o640 {
			t.Errorf("made %d:%d %o", st.Uid, st.Gid, st.Mode)
		}
		must(t, th.As(&id, 0, mknod("/group/file")))
		wantErr(t, "no group", th.As(&Identity{FSUID: 1001, FSGID: 1002}, 0, mknod("/group/other")), unix.EACCES)
		wantErr(t, "root's directory", th.As(&id, 0, mknod("/closed/file")), unix.EACCES)
		must(t, th.As(&id, Capability(unix.CAP_DAC_OVERRIDE), mknod("/closed/file")))
		wantErr(t, "device without CAP_MKNOD", th.As(&Identity{}, 0, func() error {
			return unix.Mknod(root+"/open/null", unix.S_IFCHR, int(unix.Mkdev(1, 3)))
		}), unix.EPERM)
		regains := func(after string) {
			t.Helper()
			must(t, th.Privileged(func() error {
				if now := threadStatus(t, tid)["CapEff"]; now != full || th.Broken() {
					t.Errorf("after %s: capabilities %s, before %s, broken %v", after, now, full, th.Broken())
				}
				return nil
			}))
		}
		regains("acting")
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was swallowed")
				}
			}()
			_ = th.As(&id, 0, func() error { panic("in the middle") })
		}()
		regains("a panic")
		fault := errors.New("fault")
		wantErr(t, "f's error", th.As(&id, 0, func() error { return fault }), fault)
		// An id that cannot be: nothing runs, and the thread is as before.
		ran := false
		err := th.As(&Identity{FSUID: ^uint32(0)}, 0, func() error { ran = true; return nil })
		if ran || err == nil {
			t.Errorf("impossible id: ran %v, %v", ran, err)
		}
		regains("an impossible id")
		must(t, th.As(&Identity{FSUID: 7}, 0, func() error { return nil }))
	})
}

// place says where this OS thread is.
func place(tb testing.TB) string {
	tb.Helper()
	var all string
	for _, name := range []string{"root", "cwd", "ns/mnt"} {
		link, err := os.Readlink("/proc/thread-self/" + name)
		must(tb, err)
		all += link + " "
	}
	return all
}

func TestInComesHome(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	elsewhere := dir(t, tree(t, "marker"))
	before := place(t)
	fault := errors.New("fault")
	// A mount namespace of somebody else's.
	made := make(chan Handle)
	onThread(t, func(*Thread) {
		must(t, unix.Unshare(unix.CLONE_NEWNS))
		h, err := openat(unix.AT_FDCWD, "/proc/thread-self/ns/mnt", unix.O_RDONLY)
		must(t, err)
		go func() { made <- h }()
	})
	other := <-made
	defer other.Close()
	onThread(t, func(th *Thread) {
		must(t, unix.Chdir("/"))
		home := place(t)
		inside := func(in func(*Handle, func() error) error, where *Handle, look func() error) {
			must(t, in(where, look))
			wantErr(t, "f's error", in(where, func() error { return fault }), fault)
			func() {
				defer func() { _ = recover() }()
				_ = in(where, func() error { panic("in the middle") })
			}()
			if now := place(t); now != home || th.Broken() {
				t.Errorf("came home to %s, left %s", now, home)
			}
		}
		inside(th.In, elsewhere, func() error {
			_, err := os.Stat("/marker")
			return err
		})
		inside(th.InMounts, &other, func() error {
			if place(t) == home {
				return errors.New("still at home")
			}
			return nil
		})
		wantErr(t, "In no directory", th.In(&Handle{}, func() error { return nil }), unix.EBADF)
		wantErr(t, "InMounts nowhere", th.InMounts(elsewhere, func() error { return nil }), unix.EBADF)
		if now := place(t); now != home || th.Broken() {
			t.Errorf("came home to %s, left %s", now, home)
		}
	})
	if now := place(t); now != before {
		t.Errorf("another thread is at %s, was at %s", now, before)
	}
}
