package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"github.com/sirupsen/logrus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent"
	"github.com/callgate/callgate/hooks/filter"
	"github.com/callgate/callgate/hooks/profile"
)

const (
	// firstID and countIDs map the container's ids: its root is a user of the
	// host that owns nothing.
	firstID  = 100000
	countIDs = 65536
)

// runOptions are callgate run's flags.
type runOptions struct {
	agent   agent.Config
	profile string
	rootfs  string
	level   string
	command []string
}

func runCommand() *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use:   "run [flags] -- CMD [ARG…]",
		Short: "Run a command in an unprivileged container, with an agent of its own",
		Long: `Runs a command in a container that no engine is needed for: user, mount, pid,
network, ipc, uts and cgroup namespaces, uid 0 inside is uid 100000 outside,
/dev a tmpfs of the container's own. The agent is in this process. Exits with
the command's status, 128 and the signal's number if a signal ended it.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.command = args
			return runContainer(cmd.Context(), o)
		},
	}
	configFlag(cmd, &o.agent.ConfigFile)
	flags := cmd.Flags()
	flags.StringVar(&o.profile, "profile", "default", "profile of the configuration")
	flags.StringVar(&o.rootfs, "rootfs", "", "root filesystem, in a folder that other users cannot enter (default: a new one with this host's static busybox, gone afterwards)")
	flags.StringVar(&o.level, "log-level", "warn", "error, warn, info or debug")
	flags.SetInterspersed(false)
	return cmd
}

func runContainer(ctx context.Context, o runOptions) error {
	if os.Geteuid() != 0 {
		return errors.New("run: only root may map the container's ids")
	}
	log, err := newLog(o.level, "text")
	if err != nil {
		return err
	}
	program, err := runFilter(o)
	if err != nil {
		return err
	}
	root, err := openRootfs(o.rootfs)
	if err != nil {
		return err
	}
	defer root.close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	o.agent.Socket, o.agent.Control, o.agent.Log = agent.None, agent.None, log
	a := agent.New(o.agent)
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx) }()
	select {
	case <-a.Ready():
	case err := <-served:
		return err
	}
	status, err := startContainer(ctx, a, o, root, program, log)
	stop()
	if err = errors.Join(err, <-served); err != nil {
		return err
	}
	if status != 0 {
		return exitStatus(status)
	}
	return nil
}

// runFilter compiles the seccomp filter here, where what it takes is in
// memory already; the container only loads it.
func runFilter(o runOptions) ([]unix.SockFilter, error) {
	kinds, err := agent.ProfileKinds(o.agent, o.profile)
	if err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		return nil, nil
	}
	compiled, err := profile.Compile(nil, profile.Options{Emulators: kinds, Capabilities: []string{"ALL"}})
	if err != nil {
		return nil, fmt.Errorf("compile seccomp profile: %w", err)
	}
	return filter.Build(compiled.Seccomp)
}

// startContainer runs the container to its end and returns its exit status.
func startContainer(ctx context.Context, a *agent.Agent, o runOptions, root *rootfs, program []unix.SockFilter, log *logrus.Logger) (int, error) {
	ours, theirs, err := channel()
	if err != nil {
		return 0, err
	}
	defer ours.close()
	cmd := exec.Command("/proc/self/exe", initName)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = []string{}
	cmd.SysProcAttr = containerAttr()
	// The kernel's parent death signal is the parent *thread's*.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err = cmd.Start()
	_ = theirs.Close()
	if err != nil {
		return 0, fmt.Errorf("start container: %w", err)
	}
	signals := forward(cmd.Process)
	defer signals()
	setupErr := setUp(ctx, a, o, root, program, ours, cmd.Process.Pid)
	if setupErr != nil {
		_ = cmd.Process.Kill() // it may have ended by itself
	}
	waitErr := cmd.Wait()
	if setupErr != nil {
		return 0, fmt.Errorf("set up container: %w", setupErr)
	}
	var exit *exec.ExitError
	if waitErr != nil && !errors.As(waitErr, &exit) {
		return 0, waitErr
	}
	log.WithField("state", cmd.ProcessState.String()).Debug("container ended")
	return exitCode(cmd.ProcessState), nil
}

func containerAttr() *syscall.SysProcAttr {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: firstID, Size: countIDs}}
	return &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWCGROUP,
		UidMappings:                ids,
		GidMappings:                ids,
		GidMappingsEnableSetgroups: true,
		Credential:                 &syscall.Credential{Uid: 0, Gid: 0},
		Pdeathsig:                  syscall.SIGKILL,
	}
}

// setUp is the parent's half of the conversation with callgate init: it sends
// the plan and the root filesystem, and gets the listener and a last word.
func setUp(ctx context.Context, a *agent.Agent, o runOptions, root *rootfs, program []unix.SockFilter, ours *peer, pid int) error {
	tree, err := root.mountFor(pid)
	if err != nil {
		return err
	}
	defer tree.Close()
	if err := ours.send(plan{Command: o.command, Filter: program}, tree.FD()); err != nil {
		return err
	}
	var ready report
	listener, err := ours.receive(&ready)
	if err != nil {
		return err
	}
	if ready.Error != "" {
		return errors.New(ready.Error)
	}
	if listener >= 0 {
		err := a.Register(ctx, agent.Registration{
			Listener: listener, ID: "run-" + strconv.Itoa(os.Getpid()), PID: pid, Profile: o.profile,
		})
		if err != nil {
			return err
		}
	}
	if err := ours.send(plan{}, -1); err != nil {
		return err
	}
	// Nothing, if the command was started: the socket closes on exec.
	var failed report
	if _, err := ours.receive(&failed); err == nil && failed.Error != "" {
		return errors.New(failed.Error)
	}
	return nil
}

// forward passes signals on to the container's first process.
func forward(p *os.Process) func() {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2, unix.SIGWINCH)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = p.Signal(s) // it may have ended
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

func exitCode(state *os.ProcessState) int {
	ws, ok := state.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}
