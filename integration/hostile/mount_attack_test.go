package hostile

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/callgate/callgate/integration/internal/engine"
)

// TestMountInside runs the attacks on mount that need nobody but the container
// itself.
func TestMountInside(t *testing.T) {
	for _, args := range [][]string{
		{"m-swap", "10"},      // the source is exchanged for a link, a node and a directory with another image
		{"m-memory", "2"},     // type, source and options change while they are read
		{"m-nodes"},           // nodes that lie, and nodes that nobody could open
		{"m-overlay"},         // … on an overlay of the container's own
		{"m-authority", "-1"}, // no CAP_SYS_ADMIN, or one that does not count
		{"m-options"},         // smuggled options
		{"m-images", "2"},     // what is no image, and images that change
		{"m-storms", "1"},     // signals and SIGKILL in the middle
	} {
		t.Run(args[0], func(t *testing.T) {
			s := newMountStage(t)
			s.run("m-lat", "0") // what the agent keeps after a first container
			before, err := s.agent.Holds()
			if err != nil {
				t.Fatal(err)
			}
			if args[0] == "m-nodes" {
				abortsFuse(t)
			}
			stop := watchMounts(t)
			out, c := s.run(args...)
			stop()
			t.Log(out)
			awaitDetached(t, c.ID)
			s.agent.AwaitNoMoreThan(t, before)
		})
	}
}

// TestMountTarget: a descriptor of a host directory comes into the container
// as its standard output, and targets lead there and elsewhere.
func TestMountTarget(t *testing.T) {
	s := newMountStage(t)
	files, err := images()
	if err != nil {
		t.Fatal(err)
	}
	leaked := filepath.Join(s.dir, "leaked")
	for _, dir := range []string{leaked, leaked + "/sub", leaked + "/img"} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, engine.HostID, engine.HostID); err != nil {
			t.Fatal(err)
		}
	}
	if err := copyFile(files.squash, leaked+"/img/i.sqfs"); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(leaked+"/img/i.sqfs", 0o644); err != nil {
		t.Fatal(err)
	}
	stop := watchMounts(t)
	c, text := s.leaked(leaked, "m-target", "1", "2")
	stop()
	t.Log(text)
	awaitDetached(t, c.ID)
}

// leaked runs an attack whose standard output is an open file of the host's;
// what it prints, which is the standard error, is returned.
func (m *mountStage) leaked(path string, args ...string) (engine.Container, string) {
	m.t.Helper()
	file, err := os.Open(path)
	if err != nil {
		m.t.Fatal(err)
	}
	defer file.Close()
	c := m.container(args...)
	report := filepath.Join(c.Rootfs, "report")
	if err := os.WriteFile(report, nil, 0o666); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Chmod(report, 0o666); err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m.t.Cleanup(func() { _ = m.runtime.Delete(c.ID) })
	if err := m.runtime.Create(ctx, c, file); err != nil {
		m.t.Fatal(err)
	}
	if err := m.runtime.Start(ctx, c.ID); err != nil {
		m.t.Fatal(err)
	}
	for ctx.Err() == nil {
		text, _ := os.ReadFile(report)
		if strings.Contains(string(text), "DONE ") {
			m.judge(string(text), nil)
			return c, string(text)
		}
		sleep()
	}
	text, _ := os.ReadFile(report)
	m.t.Fatalf("no end:\n%s", text)
	return c, ""
}

// TestMountNamespaceLeaked: a descriptor of the host's mount namespace comes
// into the container as its standard output.
func TestMountNamespaceLeaked(t *testing.T) {
	s := newMountStage(t)
	stop := watchMounts(t)
	_, text := s.leaked("/proc/self/ns/mnt", "m-authority", "1")
	stop()
	t.Log(text)
}

// TestMountFlagsStay: nosuid and nodev cannot be taken away, by the container
// behind its filter nor by a process that entered it without one.
func TestMountFlagsStay(t *testing.T) {
	s := newMountStage(t)
	c, text := s.ready("m-flags")
	t.Log(text)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	pid, err := s.runtime.InitPID(ctx, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(ctx, "nsenter", "-t", fmt.Sprint(pid), "-U", "-m", "-p", "--", "/bin/attack", "m-strip").CombinedOutput()
	s.judge(string(out), err)
	t.Logf("%s", out)
}

// TestMountEnds: a container that is killed takes its loop devices along, and
// has never had more than policy allows.
func TestMountEnds(t *testing.T) {
	for _, how := range []string{"0", "1", "2"} { // then the images stay, are removed, are renamed
		t.Run(how, func(t *testing.T) {
			s := newMountStage(t)
			s.run("m-lat", "0")
			before, err := s.agent.Holds()
			if err != nil {
				t.Fatal(err)
			}
			c, text := s.ready("m-exhaust", "50", how)
			if n := len(attached(t, c.ID)); n > maxLoops || n == 0 {
				t.Errorf("the container has %d loop devices, of %d allowed: %s", n, maxLoops, text)
			}
			if err := s.runtime.Kill(context.Background(), c.ID); err != nil {
				t.Fatal(err)
			}
			awaitDetached(t, c.ID)
			s.agent.AwaitNoMoreThan(t, before)
		})
	}
}

// TestMountPanics: an ext4 image may say in its superblock that the host is to
// panic where the filesystem is broken, which its writer can bring about.
func TestMountPanics(t *testing.T) {
	s := newMountStage(t)
	c := s.container("m-doom")
	image := filepath.Join(c.Rootfs, "img", c.ID+".ext4.doom")
	if err := copyFile(filepath.Join(c.Rootfs, "img", c.ID+".ext4"), image); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command("tune2fs", "-e", "panic", image).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if err := os.Chown(image, engine.HostID, engine.HostID); err != nil {
		t.Fatal(err)
	}
	out := s.start(c)
	text := await(t, out, "READY\n")
	for _, device := range attached(t, c.ID) {
		name := strings.Split(device, "/")[3]
		options, err := os.ReadFile("/proc/fs/ext4/" + name + "/options")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(options), "errors=panic") {
			t.Errorf("%s is mounted so that the host panics when it is broken", device)
		}
	}
	t.Log(text)
}
