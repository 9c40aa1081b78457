// Package fuseserver runs a FUSE program of the host for a container, confined
// so that an image that takes it over has gained next to nothing.
//
// The program is in the container's user namespace as its root, without any
// capability, not even there, in a root directory that has the host's programs
// and libraries read-only and nothing else, behind a seccomp filter, in a
// cgroup and in a pid namespace of its own, with an empty environment. It never
// mounts: callgate fuse-server, which starts it, makes the FUSE mount with
// options of our own choice and gives the program the open /dev/fuse the way
// fusermount does, which libfuse 2 and 3, fuser, go-fuse and bazil.org/fuse all
// ask when mount(2) is refused. So the agent gets the mount as a descriptor
// that was never attached anywhere.
//
// Four parties, in the order in which they come up:
//
//	agent        builds the root on an OS thread of its own, which then enters
//	             the network, ipc, uts and pid namespace and starts
//	waiter       one C thread (cmd/callgate/fuseserver.c): enters the user
//	             namespace, makes the mount, cgroup and pid namespaces, forks, waits
//	fuse-server  Go, pid 1 of the new pid namespace: mounts, drops everything,
//	             loads the filter, starts and watches
//	program      what the policy named
//
// A root directory of its own comes before any namespace of the container is
// entered: whoever is seen by the container is in its grasp, and must have
// nothing of the host's within reach. None of the three can be traced from the
// container, unless the program is a script or larger than 16 MiB: the image is
// the container's to see only as the filesystem shows it.
//
// What remains to a program that was taken over: the image itself, with some
// harmless ioctls of block devices; what other users may read in /usr; being the
// container's root for whoever asks for its user id (it has no sockets but
// pairs, and no directory in common with anybody); the processor, up to what
// the cgroup and its parents say, and memory likewise, never more than 4 GiB of
// addresses; never answering, which whoever uses the mount waits for, in the
// container only.
package fuseserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/callgate/callgate/pkg/tracee"
)

// Config says what to run, on what and where. Handles are borrowed until Start
// returns.
type Config struct {
	// Program is the host's program, by absolute path or by a name that is
	// looked up in the agent's PATH, and the arguments that come first. Added
	// to them are: /image /mnt -f [-o OPTIONS].
	Program []string
	// Source is a detached mount (open_tree(2), OPEN_TREE_CLONE) of the image
	// file, or of a device node that opens. Start moves it into the program's
	// root and sets its flags, so that it is of no other use. The container's
	// root must have the right to the file: no capability helps the program.
	Source *tracee.Handle
	// ReadOnly makes Source's and the FUSE mount read-only and adds the option
	// ro. Writing to a device node is prevented by the program's obeying ro only.
	ReadOnly bool
	// Options are for the program's -o, one each. Those that are the kernel's
	// (allow_other, max_read …) have no effect: see [Server.Tree].
	Options []string
	// User is the container's user namespace. It must map user and group 0, and
	// may not be the agent's own.
	User *tracee.Handle
	// Net, IPC and UTS are namespaces to be in; nil keeps the agent's.
	Net, IPC, UTS *tracee.Handle
	// PID is the pid namespace below which the program gets its own; nil means
	// below the agent's. Below the container's, the program ends with the
	// container's first process, is seen by the container's processes, and can
	// be killed by its root.
	PID *tracee.Handle
	// Cgroup names the cgroup to make below the agent's own (cgroup v2).
	Cgroup string
	// Launcher is the command callgate fuse-server. Empty means this program if
	// it is called callgate, else the callgate in PATH.
	Launcher []string
	// Ready is how long Start may take; 0 means ten seconds.
	Ready time.Duration
}

// Server is a FUSE program that serves. Its methods may be called concurrently,
// but for Tree.
type Server struct {
	// Warning says in which way the confinement is less than it should be, for
	// the operator; empty if it is not. Not changed after Start.
	Warning string

	tree   tracee.Handle
	cmd    *exec.Cmd
	output *tail
	cgroup *cgroup
	done   chan struct{}
	stop   sync.Once
}

const (
	defaultReady = 10 * time.Second
	// afterEnd bounds the wait for the program's exit status and output once it
	// has ended.
	afterEnd = time.Second
)

// Start runs the program and blocks until it has answered for the root of its
// filesystem, has failed, Ready is over or ctx is done; in all cases but the first
// nothing is left. The error then ends with the last of what the program wrote,
// 4 KiB at most, which is the container's text as much as the program's.
//
// ctx and Ready are about starting only. The program outlives the agent: it ends
// with its mount, some seconds later if it does not do so by itself, or by Stop.
func Start(ctx context.Context, c Config) (*Server, error) {
	if c.Ready <= 0 {
		c.Ready = defaultReady
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.Ready, fmt.Errorf("does not serve after %v", c.Ready))
	defer cancel()
	p, err := c.plan()
	if err != nil {
		return nil, fmt.Errorf("start FUSE program: %w", err)
	}
	s := &Server{done: make(chan struct{}), output: &tail{}}
	s.cgroup, s.Warning = newCgroup(c.Cgroup)
	channel, err := s.launch(p)
	if err != nil {
		s.cgroup.remove()
		return nil, fmt.Errorf("start FUSE program %q: %w", p.name, err)
	}
	defer channel.close()
	go s.wait()
	if err := s.handshake(ctx, channel, c.ReadOnly); err != nil {
		if errors.Is(err, errEnded) {
			s.settle()
		}
		s.Stop()
		<-s.done
		s.tree.Close()
		return nil, fmt.Errorf("start FUSE program %q: %w", p.name, s.explain(err))
	}
	return s, nil
}

// Tree passes the mount on, once: a detached mount of type fuse.PROGRAM, nosuid
// and nodev, for move_mount(2). All ids of the container may use it, subject to
// the modes that the program reports (allow_other, default_permissions); nobody
// outside the container's user namespace can, the agent included, so that its
// calls on the mount never wait for the program. Closing the handle before it
// is attached somewhere ends the program.
func (s *Server) Tree() tracee.Handle {
	tree := s.tree
	s.tree = tracee.Handle{}
	return tree
}

// Done is closed once the program has ended, has been reaped and its cgroup
// is gone.
func (s *Server) Done() <-chan struct{} { return s.done }

// Stop kills the program and does not wait for it. What it has not written to
// the image yet is lost: to end it well, unmount.
func (s *Server) Stop() {
	s.stop.Do(func() {
		// By pidfd where there are any. It may have ended; the program ends with
		// the waiter, and its pid namespace with its first process.
		_ = s.cmd.Process.Kill()
	})
}

func (s *Server) wait() {
	_ = s.cmd.Wait() // explain and Done tell
	s.cgroup.remove()
	close(s.done)
}

// settle gives what is ending by itself a moment, so that its exit status is
// its own.
func (s *Server) settle() {
	select {
	case <-s.done:
	case <-time.After(afterEnd):
	}
}

// explain says why the program did not start. It has ended and been waited for.
func (s *Server) explain(err error) error {
	if errors.Is(err, errEnded) {
		err = fmt.Errorf("ended: %v", s.cmd.ProcessState)
	}
	if text := s.output.String(); text != "" {
		return fmt.Errorf("%w: %s", err, text)
	}
	return err
}

// plan is a checked Config.
type plan struct {
	Config
	name    string // of the program
	program string // its path
	argv    []string
}

func (c *Config) plan() (*plan, error) {
	if len(c.Program) == 0 || c.Source == nil || c.User == nil {
		return nil, errors.New("program, source or user namespace missing")
	}
	p := &plan{Config: *c}
	if len(c.Launcher) == 0 {
		self, err := launcher()
		if err != nil {
			return nil, err
		}
		p.Launcher = []string{self, "fuse-server"}
	}
	var err error
	if p.program, err = exec.LookPath(c.Program[0]); err != nil {
		return nil, err
	}
	if p.program, err = filepath.Abs(p.program); err != nil {
		return nil, err
	}
	p.name = filepath.Base(p.program)
	p.argv = append([]string{programDir + "/" + p.name}, c.Program[1:]...)
	p.argv = append(p.argv, "/"+imageName, "/"+mountName, "-f")
	options := c.Options
	for _, o := range options {
		// libfuse splits at commas and takes backslashes for escapes.
		if o == "" || strings.ContainsAny(o, ",\\\x00") {
			return nil, fmt.Errorf("mount option %q cannot be passed on", o)
		}
	}
	if c.ReadOnly {
		options = append([]string{"ro"}, options...)
	}
	if len(options) > 0 {
		p.argv = append(p.argv, "-o", strings.Join(options, ","))
	}
	return p, nil
}

func launcher() (string, error) {
	self, err := os.Executable()
	if err == nil && filepath.Base(self) == "callgate" {
		return self, nil
	}
	return exec.LookPath("callgate")
}
