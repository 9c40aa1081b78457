package tracee

import (
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// TestOverride: a capability counts where the owner is mapped, and only there.
func TestOverride(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	root := tree(t, "ours/in/", "ours/foreign/in/", "foreign/in/", "group/in/", "nobody/in/")
	for name, ids := range map[string][2]int{"ours": {1500, 1500}, "ours/foreign": {0, 0}, "foreign": {0, 0}, "group": {1500, 0}, "nobody": {overflowID, overflowID}} {
		must(t, os.Chown(root+"/"+name, ids[0], ids[1]))
		must(t, os.Chmod(root+"/"+name, 0o700))
	}
	tr := own(t, alive)
	at := Lookup{Root: dir(t, root), Dir: dir(t, root), Patient: true}
	search := Capability(unix.CAP_DAC_READ_SEARCH)
	onThread(t, func(th *Thread) {
		for _, c := range []struct {
			name  string
			caps  Capabilities
			path  string
			errno error
		}{
			{"mapped", Capability(unix.CAP_DAC_OVERRIDE), "/ours/in", nil},
			{"mapped, search only", search, "/ours/in", nil},
			{"mapped, no capability", 0, "/ours/in", unix.EACCES},
			{"mapped, then not", overriding, "/ours/foreign/in", unix.EACCES},
			{"mapped, up to where it is not", overriding, "/ours/foreign", nil},
			{"not mapped", overriding, "/foreign/in", unix.EACCES},
			{"group not mapped", overriding, "/group/in", unix.EACCES},
			{"overflow id", overriding, "/nobody/in", unix.EACCES},
			{"through ..", overriding, "/ours/in/../../foreign", nil},
			{"relative", overriding, "ours/in", nil},
			{"not there", overriding, "/ours/nothing", unix.ENOENT},
		} {
			h, err := th.Open(mapped(tr, c.caps), at, c.path, pathDir)
			h.Close()
			wantErr(t, c.name, err, c.errno)
			if c.errno == nil && err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		// To search is not to write.
		ours := dir(t, root+"/ours")
		create := func() error { return unix.Mkdirat(ours.FD(), "new", 0o755) }
		wantErr(t, "create with search", th.Within(mapped(tr, search), ours, 0, create), unix.EACCES)
		wantErr(t, "create", th.Within(mapped(tr, overriding), ours, 0, create), nil)
		foreign := dir(t, root+"/foreign")
		wantErr(t, "create in foreign", th.Within(mapped(tr, overriding), foreign, 0, func() error {
			return unix.Mkdirat(foreign.FD(), "new", 0o755)
		}), unix.EACCES)
		_, err := th.Open(mapped(tr, overriding), at, "/ours/in", unix.O_RDONLY|unix.O_DIRECTORY)
		wantErr(t, "no reference", err, unix.EACCES) // overriding is for references
	})
}

// TestProtectedSymlinks is fs.protected_symlinks, whatever it is set to here.
func TestProtectedSymlinks(t *testing.T) {
	notifytest.NeedRoot(t)
	root := tree(t, "tmp/", "a/", "tmp/theirs -> /a", "tmp/ours -> /a", "tmp/owners -> /a")
	must(t, os.Chmod(root+"/tmp", 0o777|os.ModeSticky))
	must(t, os.Chown(root+"/tmp", 1700, 1700))
	for link, uid := range map[string]int{"theirs": 1600, "ours": 1000, "owners": 1700} {
		must(t, os.Lchown(root+"/tmp/"+link, uid, uid))
	}
	at := Lookup{Root: dir(t, root), Dir: dir(t, root), Patient: true}
	who := mapped(own(t, alive), overriding)
	onThread(t, func(th *Thread) {
		for path, errno := range map[string]error{"/tmp/theirs": unix.EACCES, "/tmp/ours": nil, "/tmp/owners": nil} {
			h, err := th.walk(who, at, path, pathDir)
			h.Close()
			wantErr(t, path, err, errno)
		}
	})
}

// TestSwap renames directories and links under the walk; what is found is
// below the root, always.
func TestSwap(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	outer := tree(t, "jail/a/b/in/", "jail/x -> /a", "jail/y -> ../../../..", "jail/c/", "in/", "b/in/")
	root := outer + "/jail"
	at := Lookup{Root: dir(t, root), Dir: dir(t, root+"/a"), Patient: true}
	who := mapped(own(t, alive), overriding)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			_ = unix.Renameat2(unix.AT_FDCWD, root+"/x", unix.AT_FDCWD, root+"/y", unix.RENAME_EXCHANGE)
			_ = unix.Rename(root+"/a/b", root+"/c/b")
			_ = unix.Rename(root+"/c/b", root+"/a/b")
		}
	}()
	var good, bad unix.Stat_t
	must(t, unix.Stat(root+"/a/b/in", &good))
	var outside [2]uint64
	for i, name := range []string{"/in", "/b/in"} {
		must(t, unix.Stat(outer+name, &bad))
		outside[i] = bad.Ino
	}
	onThread(t, func(th *Thread) {
		found := 0
		for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
			for _, path := range []string{"/x/b/in", "b/../../in", "b/../../b/in", "../x/b/in", "/y/b/in"} {
				for _, open := range []func(*Actor, Lookup, string, uint64) (Handle, error){th.Open, th.walk} {
					h, err := open(who, at, path, pathDir)
					if err != nil {
						if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.EAGAIN) {
							t.Errorf("%s: %v", path, err)
						}
						continue
					}
					st, err := h.Stat()
					h.Close()
					if err != nil || st.Ino == outside[0] || st.Ino == outside[1] {
						t.Fatalf("%s led out of the root (%v)", path, err)
					}
					found++
				}
			}
		}
		if found == 0 {
			t.Error("nothing was ever found")
		}
	})
	stop.Store(true)
	<-done
}
