package tracee

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

const pathDir = unix.O_PATH | unix.O_DIRECTORY

// mapped is an actor to whom ids from 1000 to 1999 are mapped.
func mapped(tr *Tracee, override Capabilities) *Actor {
	return &Actor{Identity: Identity{FSUID: 1000, FSGID: 1000}, Override: override, caller: tr, uids: idMap{{1000, 1000}}, gids: idMap{{1000, 1000}}}
}

// sameFile says whether h is what path names.
func sameFile(tb testing.TB, h *Handle, path string) bool {
	tb.Helper()
	var st unix.Stat_t
	must(tb, elsewhere(func() error { return unix.Lstat(path, &st) }))
	got, err := h.Stat()
	must(tb, err)
	return got.Ino == st.Ino && got.Dev == st.Dev
}

func lookupTree(tb testing.TB) string {
	return tree(tb, "a/b/c/", "a/file", "etc/", "up -> ..", "abs -> /a/b", "out -> /../../../etc", "climb -> ../../../../etc",
		"loop -> loop", "l0 -> /a", "dangling -> nowhere", "tofile -> a/file", "a/rel -> b/c", "slash -> a/")
}

// lookups are what openat2 and walk must agree on; want names an entry of the
// tree or is an errno.
func lookups() []struct {
	path, want string
	errno      error
} {
	type l = struct {
		path, want string
		errno      error
	}
	return []l{
		{"/", "", nil}, {"/..", "", nil}, {"/a/b", "a/b", nil}, {"//a//b//", "a/b", nil}, {"/a/./b/../b", "a/b", nil},
		{"/a/../../../etc", "etc", nil}, {"/abs/c", "a/b/c", nil}, {"/out", "etc", nil}, {"/climb", "etc", nil}, {"/up/up/etc", "etc", nil},
		{"/a/rel", "a/b/c", nil}, {"/slash/b", "a/b", nil}, {"b", "a/b", nil}, {".", "a", nil}, {"rel", "a/b/c", nil}, {"..", "", nil},
		{"../etc", "etc", nil}, {"../abs", "a/b", nil}, {"../../../etc", "etc", nil}, {"b/../../out", "etc", nil},
		{"/nothing", "", unix.ENOENT}, {"/nothing/x", "", unix.ENOENT}, {"/dangling", "", unix.ENOENT}, {"/a/file", "", unix.ENOTDIR},
		{"/a/file/", "", unix.ENOTDIR}, {"/a/file/x", "", unix.ENOTDIR}, {"/tofile", "", unix.ENOTDIR}, {"/tofile/..", "", unix.ENOTDIR},
		{"/loop", "", unix.ELOOP}, {"/" + strings.Repeat("x", 256), "", unix.ENAMETOOLONG},
		{strings.Repeat("b/../", 45) + "b", "a/b", nil}, {strings.Repeat("../l0/", 40) + "b", "a/b", nil}, {strings.Repeat("../l0/", 41) + "b", "", unix.ELOOP},
	}
}

func TestOpenAndWalk(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	root := lookupTree(t)
	tr := own(t, alive)
	at := Lookup{Root: dir(t, root), Dir: dir(t, root+"/a"), Patient: true}
	who := mapped(tr, overriding)
	onThread(t, func(th *Thread) {
		for name, open := range map[string]func(path string, flags uint64) (Handle, error){
			"open": func(path string, flags uint64) (Handle, error) { return th.Open(who, at, path, flags) },
			"walk": func(path string, flags uint64) (Handle, error) { return th.walk(who, at, path, flags) },
		} {
			for _, c := range lookups() {
				h, err := open(c.path, pathDir)
				wantErr(t, name+" "+c.path, err, c.errno)
				if err == nil && !sameFile(t, &h, root+"/"+c.want) {
					t.Errorf("%s %s led elsewhere", name, c.path)
				}
				h.Close()
			}
			for _, c := range []struct {
				path  string
				flags uint64
				want  string
				errno error
			}{
				{"/tofile", 0, "a/file", nil}, {"/tofile", unix.O_NOFOLLOW, "tofile", nil}, {"/tofile/", 0, "", unix.ENOTDIR}, {"/a/file/", 0, "", unix.ENOTDIR},
				{"/abs/", unix.O_NOFOLLOW, "a/b", nil}, {"/loop", unix.O_NOFOLLOW, "loop", nil}, {"/tofile", unix.O_NOFOLLOW | unix.O_DIRECTORY, "", unix.ENOTDIR},
			} {
				h, err := open(c.path, unix.O_PATH|c.flags)
				wantErr(t, name+" "+c.path, err, c.errno)
				if err == nil && !sameFile(t, &h, root+"/"+c.want) {
					t.Errorf("%s %s (%#x) led elsewhere", name, c.path, c.flags)
				}
				h.Close()
			}
		}
	})
}

func TestOpenInHurry(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	root := lookupTree(t)
	tr := own(t, alive)
	at := Lookup{Root: dir(t, root), Dir: dir(t, root+"/a")}
	who := mapped(tr, overriding)
	must(t, os.MkdirAll(root+"/secret/in", 0o755))
	must(t, os.Chown(root+"/secret", 1000, 1000))
	must(t, os.Chmod(root+"/secret", 0))
	onThread(t, func(th *Thread) {
		for _, path := range []string{"/a/b", "b", "b/c", "/a/b/../b", "."} {
			patient := at
			patient.Patient = true
			h, err := th.Open(who, patient, path, pathDir) // caches what is not yet, such as ACLs
			wantErr(t, path, err, nil)
			h.Close()
			h, err = th.Open(who, at, path, pathDir)
			wantErr(t, path, err, nil)
			h.Close()
		}
		// Climbing takes a change of root, overriding a walk, a name that is
		// not cached the filesystem, and a wrong flag looks like the EINVAL of a
		// kernel without RESOLVE_CACHED.
		for _, path := range []string{"..", "../abs", "/secret/in", "/never-looked-at"} {
			_, err := th.Open(who, at, path, pathDir)
			wantErr(t, path, err, ErrBlocks)
		}
		_, err := th.Open(who, at, "/a", 1<<40)
		wantErr(t, "unknown flag", err, ErrBlocks)
		at.Patient = true
		_, err = th.Open(who, at, "/a", 1<<40)
		wantErr(t, "unknown flag, patient", err, unix.EINVAL)
		_, err = th.Open(who, at, "", pathDir)
		wantErr(t, "empty path", err, unix.ENOENT)
	})
}

// TestMagicLinks has the host's root, which has a procfs, as the caller's.
func TestMagicLinks(t *testing.T) {
	notifytest.NeedRoot(t)
	notifytest.NoLeak(t)
	tr := own(t, alive)
	at := Lookup{Root: dir(t, "/"), Dir: dir(t, "/proc"), Patient: true}
	cwd, err := os.Getwd()
	must(t, err)
	who := mapped(tr, overriding)
	onThread(t, func(th *Thread) {
		// Another process's, which we could follow and the caller could not.
		for _, path := range []string{"/proc/1/root", "/proc/1/cwd", "/proc/1/root/etc", "1/cwd", "/proc/1/fd/0", "/proc/1/task/1/root"} {
			for _, patient := range []bool{true, false} {
				at.Patient = patient
				h, err := th.Open(who, at, path, unix.O_PATH)
				h.Close()
				if err == nil || !patient && !errors.Is(err, ErrBlocks) {
					t.Errorf("%s (patient %v): %v", path, patient, err)
				}
			}
		}
		at.Patient = true
		for path, want := range map[string]string{"/proc/self/cwd": cwd, "/proc/thread-self/root": "/", "/proc/self/root/proc/self/cwd/": cwd} {
			h, err := th.Open(who, at, path, pathDir)
			wantErr(t, path, err, nil)
			if err == nil && !sameFile(t, &h, want) {
				got, _ := os.Readlink("/proc/self/fd/" + strconv.Itoa(h.FD()))
				t.Errorf("%s led to %s, want %s", path, got, want)
			}
			h.Close()
		}
		_, err = th.Open(who, at, "/proc/self/fd/99999", pathDir)
		wantErr(t, "no such descriptor", err, unix.ENOENT)
		_, err = th.Open(who, at, "/proc/self/exe", pathDir)
		wantErr(t, "exe as a directory", err, unix.ENOTDIR)
		_, err = th.Open(who, at, "/proc/self/environ/x", pathDir)
		wantErr(t, "other file of a procfs", err, unix.ENOTDIR)
	})
}
