package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/pkg/seccompnotify"
	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	must(t, err)
	return n
}

// TestEmbed is what package agent's Example does: a program registers a
// listener by itself, and the container's calls are carried out.
func TestEmbed(t *testing.T) {
	cfg := testAgentConfig(t)
	cfg.Socket, cfg.Control = None, None
	a, _ := serve(t, cfg)
	child := notifytest.Start(t, notifytest.Options{Attr: &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: 100000, Size: 1000}},
	}})
	must(t, a.Register(t.Context(), Registration{Listener: child.Listener, ID: "c", PID: child.PID, Profile: "builder"}))
	want(t, child, 2)
	list := a.Containers()
	if len(list) != 1 || list[0].ID != "c" || list[0].UID != 0 || list[0].Profile != "builder" || list[0].Listeners != 1 {
		t.Errorf("containers: %+v", list)
	}
	// It is counted after the answer.
	eventually(t, "count of the call", func() bool { return a.Containers()[0].Calls["answered"] == 1 })
	child.Kill()
	eventually(t, "end of the container", func() bool { return len(a.Containers()) == 0 })
}

// TestSelect: metadata and annotations choose the profile where none is named.
func TestSelect(t *testing.T) {
	a, _ := serve(t, testAgentConfig(t))
	for name, test := range map[string]struct {
		r    Registration
		want int64
	}{
		"nothing":       {Registration{}, 1},
		"metadata":      {Registration{Metadata: "builder"}, 2},
		"annotation":    {Registration{Annotations: map[string]string{"who": "builder"}}, 2},
		"other":         {Registration{Metadata: "else", Annotations: map[string]string{"who": "else"}}, 1},
		"profile first": {Registration{Metadata: "builder", Profile: "default"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			child := notifytest.Start(t, notifytest.Options{})
			r := test.r
			r.Listener, r.ID, r.PID = child.Listener, "c-"+name, child.PID
			must(t, a.Register(t.Context(), r))
			want(t, child, test.want)
		})
	}
}

func TestRegisterFails(t *testing.T) {
	cfg := testAgentConfig(t)
	cfg.ConfigText += "limits: {listenersPerUid: 2}\n"
	a, stop := serve(t, cfg)
	child := notifytest.Start(t, notifytest.Options{})
	ok := Registration{Listener: child.Listener, ID: "c", PID: child.PID}
	fails := func(name string, r Registration, is error, text string) {
		t.Helper()
		err := a.Register(t.Context(), r)
		if err == nil || is != nil && !errors.Is(err, is) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v, want %q, %v", name, err, text, is)
		}
		if !closed(r.Listener) {
			t.Errorf("%s: the listener is still open", name)
		}
	}
	with := func(change func(*Registration)) Registration {
		r := ok
		r.Listener = dup(t, child.Listener)
		change(&r)
		return r
	}
	fails("no listener", with(func(r *Registration) { _ = unix.Close(r.Listener); r.Listener = spare(t) }), seccompnotify.ErrNotListener, `container "c"`)
	fails("no process", with(func(r *Registration) { r.PID = 1 << 22 }), unix.ESRCH, `container "c": pin container's process`)
	fails("no profile", with(func(r *Registration) { r.Profile = "nope" }), nil, "nope")
	must(t, a.Register(t.Context(), with(func(*Registration) {})))
	fails("twice", with(func(*Registration) {}), dispatch.ErrTwice, "")
	second := notifytest.Start(t, notifytest.Options{})
	must(t, a.Register(t.Context(), Registration{Listener: second.Listener, ID: "d", PID: second.PID}))
	fails("too many", with(func(*Registration) {}), nil, "user 0 has 2 listeners, which is the limit")
	// What failed left no count behind, and what goes makes room.
	second.Kill()
	eventually(t, "end of the second", func() bool { return len(a.Containers()) == 1 })
	third := notifytest.Start(t, notifytest.Options{})
	eventually(t, "room for a third", func() bool {
		return a.Register(t.Context(), Registration{Listener: dup(t, third.Listener), ID: "e", PID: third.PID}) == nil
	})
	_ = unix.Close(third.Listener)
	want(t, child, 1)
	want(t, third, 1)
	stop()
	fails("no agent any more", with(func(*Registration) {}), dispatch.ErrClosed, "")
	eventually(t, "end of the containers", func() bool { return len(a.Containers()) == 0 })
	_ = unix.Close(child.Listener)
}

// TestSecondListener: an exec's listener belongs to the container that is
// there, with the profile that it got; also one without a pid.
func TestSecondListener(t *testing.T) {
	a, _ := serve(t, testAgentConfig(t))
	first, second, third := notifytest.Start(t, notifytest.Options{}), notifytest.Start(t, notifytest.Options{}), notifytest.Start(t, notifytest.Options{})
	must(t, a.Register(t.Context(), Registration{Listener: first.Listener, ID: "c", PID: first.PID, Metadata: "builder"}))
	must(t, a.Register(t.Context(), Registration{Listener: second.Listener, ID: "c", PID: second.PID}))
	must(t, a.Register(t.Context(), Registration{Listener: third.Listener, ID: "c"}))
	want(t, first, 2)
	want(t, second, 2)
	want(t, third, 2)
	if list := a.Containers(); len(list) != 1 || list[0].Listeners != 3 {
		t.Errorf("containers: %+v", list)
	}
	eventually(t, "count of the calls", func() bool { return a.Containers()[0].Calls["answered"] == 3 })
	first.Kill()
	second.Kill()
	eventually(t, "end of two listeners", func() bool { return a.Containers()[0].Listeners == 1 })
	want(t, third, 2)
}

// TestSameName: a name that comes again with another user namespace is another
// container's.
func TestSameName(t *testing.T) {
	a, _ := serve(t, testAgentConfig(t))
	old := notifytest.Start(t, notifytest.Options{})
	now := notifytest.Start(t, notifytest.Options{Attr: &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER}})
	must(t, a.Register(t.Context(), Registration{Listener: old.Listener, ID: "c", PID: old.PID}))
	must(t, a.Register(t.Context(), Registration{Listener: now.Listener, ID: "c", PID: now.PID, Metadata: "builder"}))
	want(t, old, 1)
	want(t, now, 2)
	old.Kill()
	want(t, now, 2)
	now.Kill()
	eventually(t, "end of both", func() bool { return len(a.Containers()) == 0 })
}

// TestSocket: the same by way of the socket.
func TestSocket(t *testing.T) {
	cfg := testAgentConfig(t)
	a, _ := serve(t, cfg)
	child := notifytest.Start(t, notifytest.Options{})
	conn, err := net.Dial("unix", cfg.Socket)
	must(t, err)
	defer conn.Close()
	text, err := json.Marshal(map[string]any{
		"ociVersion": "0.2.0", "fds": []string{"seccompFd"}, "pid": child.PID, "metadata": "builder",
		"state": map[string]any{"ociVersion": "0.2.0", "id": "by-socket", "pid": child.PID},
	})
	must(t, err)
	_, _, err = conn.(*net.UnixConn).WriteMsgUnix(text, unix.UnixRights(child.Listener), nil)
	must(t, err)
	must(t, unix.Close(child.Listener))
	want(t, child, 2)
	if list := a.Containers(); len(list) != 1 || list[0].ID != "by-socket" {
		t.Errorf("containers: %+v", list)
	}
}

func TestReload(t *testing.T) {
	cfg := testAgentConfig(t)
	cfg.ConfigText, cfg.ConfigFile = "", filepath.Join(t.TempDir(), "c.yaml")
	write := func(value int) {
		must(t, os.WriteFile(cfg.ConfigFile, fmt.Appendf(nil, "profiles: {default: {test: {value: %d}}}", value), 0o600))
	}
	write(1)
	a, _ := serve(t, cfg)
	add := func(id string) *notifytest.Child {
		child := notifytest.Start(t, notifytest.Options{})
		must(t, a.Register(t.Context(), Registration{Listener: child.Listener, ID: id, PID: child.PID}))
		return child
	}
	first := add("first")
	write(2)
	must(t, a.Reload())
	second := add("second")
	must(t, os.WriteFile(cfg.ConfigFile, []byte("profiles: {default: {test: {valeu: 3}}}"), 0o600))
	if err := a.Reload(); err == nil || !strings.Contains(err.Error(), "valeu") {
		t.Errorf("a bad file: %v", err)
	}
	third := add("third")
	must(t, os.Remove(cfg.ConfigFile))
	if err := a.Reload(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	want(t, first, 1) // keeps what it has
	want(t, second, 2)
	want(t, third, 2)
	want(t, add("fourth"), 2)
}

// TestNameAgain: a container that starts under the name of one whose listener
// still lives gets its own profile, not the last bearer's.
func TestNameAgain(t *testing.T) {
	a, _ := serve(t, testAgentConfig(t))
	start := func(metadata string) *notifytest.Child {
		child := notifytest.Start(t, notifytest.Options{})
		l, err := seccompnotify.NewListener(child.Listener)
		must(t, err)
		must(t, a.register(claim{listener: l, id: "c", pid: child.PID, begins: true, metadata: metadata}))
		return child
	}
	last, next := start("builder"), start("")
	want(t, last, 2)
	want(t, next, 1)
}
