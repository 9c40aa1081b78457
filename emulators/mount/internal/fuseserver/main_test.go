package fuseserver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
	"github.com/callgate/callgate/pkg/tracee"
)

// The process's first thread is what /proc shows of it, and never ends: not for
// a goroutine that changes namespaces.
func init() { runtime.LockOSThread() }

const hostID = 100000

// launcherDirectory has the callgate that the tests start.
var launcherDirectory string

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "fuseserver")
	if err != nil {
		panic(err)
	}
	launcherDirectory = dir
	// Main exits, so that a child removes the folder, when the pipe ends with us.
	in, out, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	remover := exec.Command("sh", "-c", `cat; rm -rf "$0"`, dir)
	remover.Stdin = in
	if err := remover.Start(); err != nil {
		panic(err)
	}
	in.Close()
	defer out.Close() // keeps it until then
	notifytest.Main(m)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

// callgate builds the launcher, once.
func callgate(tb testing.TB) []string {
	tb.Helper()
	path := filepath.Join(launcherDirectory, "callgate")
	if _, err := os.Stat(path); err != nil {
		out, err := exec.Command("go", "build", "-o", path, "github.com/callgate/callgate/cmd/callgate").CombinedOutput()
		if err != nil {
			tb.Fatalf("build callgate: %v\n%s", err, out)
		}
		must(tb, os.Chmod(launcherDirectory, 0o755))
	}
	return []string{path, "fuse-server"}
}

func need(tb testing.TB, program string) {
	tb.Helper()
	if _, err := exec.LookPath(program); err != nil {
		unavailable(tb, program)
	}
}

func unavailable(tb testing.TB, what string) {
	tb.Helper()
	if os.Getenv("CALLGATE_TEST_REQUIRE") == "all" {
		tb.Fatalf("needs %s", what)
	}
	tb.Skipf("needs %s", what)
}

// container is a process in namespaces of its own, with its user namespace's
// root mapped to hostID.
type container struct {
	pid int
	cmd *exec.Cmd

	user, net, ipc, uts, pids, mounts tracee.Handle
}

func startContainer(tb testing.TB) *container {
	tb.Helper()
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: hostID, Size: 65536}}
	c := &container{cmd: exec.Command("sleep", "1000")}
	c.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS,
		UidMappings: ids, GidMappings: ids, GidMappingsEnableSetgroups: true,
		Credential: &syscall.Credential{},
	}
	must(tb, c.cmd.Start())
	tb.Cleanup(c.kill)
	c.open(tb, c.cmd.Process.Pid)
	return c
}

// open takes hold of the container with that first process.
func (c *container) open(tb testing.TB, pid int) {
	tb.Helper()
	c.pid = pid
	for name, h := range map[string]*tracee.Handle{"user": &c.user, "net": &c.net, "ipc": &c.ipc, "uts": &c.uts, "pid": &c.pids, "mnt": &c.mounts} {
		fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/%s", pid, name), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		must(tb, err)
		*h = tracee.NewHandle(fd)
		tb.Cleanup(h.Close)
	}
}

func (c *container) kill() {
	c.cmd.Process.Kill()
	c.cmd.Wait()
}

// attach puts a mount on the container's /mnt.
func (c *container) attach(tb testing.TB, tree tracee.Handle) {
	tb.Helper()
	defer tree.Close()
	must(tb, elsewhere(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(c.mounts.FD(), unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.MoveMount(tree.FD(), "", unix.AT_FDCWD, "/mnt", unix.MOVE_MOUNT_F_EMPTY_PATH)
	}))
}

// run runs a shell command in the container, as a user of it.
func (c *container) run(tb testing.TB, id int, command string) (string, error) {
	tb.Helper()
	target := strconv.Itoa(c.pid)
	ctx, cancel := context.WithTimeout(tb.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", target, "-U", "-m", "-p", "-S", strconv.Itoa(id), "-G", strconv.Itoa(id), "sh", "-c", command)
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func (c *container) do(tb testing.TB, command, want string) {
	tb.Helper()
	if out, err := c.run(tb, 0, command); err != nil || out != want {
		tb.Errorf("%s: %v, got %q, want %q", command, err, out, want)
	}
}

// image makes an ext4 image of the container's root, in a folder of nobody's.
func image(tb testing.TB) string {
	tb.Helper()
	need(tb, "mke2fs")
	need(tb, "fuse2fs")
	path := filepath.Join(tb.TempDir(), "image")
	out, err := exec.Command("mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", path, "8M").CombinedOutput()
	if err != nil {
		tb.Fatalf("mke2fs: %v\n%s", err, out)
	}
	must(tb, os.Chown(path, hostID, hostID))
	must(tb, os.Chmod(path, 0o600))
	return path
}

// source is a detached mount of a file.
func source(tb testing.TB, path string) *tracee.Handle {
	tb.Helper()
	fd, err := unix.OpenTree(unix.AT_FDCWD, path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	must(tb, err)
	h := tracee.NewHandle(fd)
	tb.Cleanup(h.Close)
	return &h
}

var cgroups int

// launcherEnv is a launcher that there is already.
const launcherEnv = "CALLGATE_TEST_LAUNCHER"

func (c *container) config(tb testing.TB, path string, program ...string) Config {
	tb.Helper()
	cgroups++
	launcher := []string{os.Getenv(launcherEnv), "fuse-server"}
	if launcher[0] == "" {
		launcher = callgate(tb)
	}
	return Config{
		Program: program, Source: source(tb, path), User: &c.user, Net: &c.net, IPC: &c.ipc, UTS: &c.uts, PID: &c.pids,
		Cgroup: fmt.Sprintf("callgate-fuse-test-%d-%d", os.Getpid(), cgroups), Launcher: launcher,
	}
}

// start starts a program and checks, when the test ends, that nothing is left.
func start(tb testing.TB, c Config) *Server {
	tb.Helper()
	s, err := Start(tb.Context(), c)
	must(tb, err)
	tb.Cleanup(func() {
		s.Stop()
		ended(tb, s)
		gone(tb, c.Cgroup)
	})
	return s
}

func ended(tb testing.TB, s *Server) {
	tb.Helper()
	select {
	case <-s.Done():
	case <-time.After(10 * time.Second):
		tb.Fatal("the program lives on")
	}
}

func gone(tb testing.TB, name string) {
	tb.Helper()
	own, err := ownCgroup()
	must(tb, err)
	if _, err := os.Stat(filepath.Join(own, name)); !errors.Is(err, os.ErrNotExist) {
		tb.Errorf("cgroup %s is left: %v", name, err)
	}
}

// pids are the host's numbers of the processes of a server.
func (s *Server) pids(tb testing.TB) []int {
	tb.Helper()
	text, err := os.ReadFile(filepath.Join(s.cgroup.path, "cgroup.procs"))
	must(tb, err)
	var all []int
	for _, field := range bytes.Fields(text) {
		n, err := strconv.Atoi(string(field))
		must(tb, err)
		all = append(all, n)
	}
	return all
}

// program is the pid of the process with that name.
func (s *Server) program(tb testing.TB, name string) int {
	tb.Helper()
	for _, pid := range s.pids(tb) {
		if comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); string(comm) == name+"\n" {
			return pid
		}
	}
	tb.Fatal("no process", name)
	return 0
}

func read(tb testing.TB, format string, args ...any) string {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf(format, args...))
	must(tb, err)
	return string(text)
}
