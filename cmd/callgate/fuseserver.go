package main

import "C" // for fuseserver.c

import (
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
)

// fuseServerName is the hidden sub-command that confines a FUSE program and
// starts it, see emulators/mount/internal/fuseserver.
const fuseServerName = "fuse-server"

// fuseServerChannel is the descriptor of its end of the channel to the agent.
const fuseServerChannel = 3

const (
	// fuseServerFiles is the program's RLIMIT_NOFILE.
	fuseServerFiles = 1024
	// fuseServerMemory is its RLIMIT_AS in bytes: for where the cgroup has no
	// limit. Stacks and arenas that are never touched count.
	fuseServerMemory = 4 << 30
	// fuseServerWatch is how often the mount is looked after.
	fuseServerWatch = time.Second
	// fuseServerGrace is how long a program may take to write its caches once
	// its mount is gone.
	fuseServerGrace = 30 * time.Second
)

// fuseServerFilter allows what a filesystem in user space does: files, memory,
// threads, signals and time. No mounts, namespaces, sockets (but pairs), keys,
// tracing, io_uring, and of ioctl(2) only the block layer's harmless ones.
//
//go:embed fuseserver.json
var fuseServerFilter []byte

func fuseServerCommand() *cobra.Command {
	return &cobra.Command{
		Use:    fuseServerName,
		Hidden: true,
		Args:   cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if os.Getpid() != 1 {
				return errors.New("fuse-server: is for the agent only")
			}
			unix.CloseOnExec(fuseServerChannel)
			agent := &peer{fuseServerChannel}
			status, err := fuseServer(agent, args)
			if err != nil && agent.send(report{Error: err.Error()}, -1) != nil {
				return err
			}
			return exitStatus(status)
		},
	}
}

// fuseServer mounts, confines, starts and watches the program. It is the first
// process of a pid namespace, as root of the container's user namespace, on the
// process's first thread, which main locked: what the thread gives up, the
// program never has.
func fuseServer(agent *peer, args []string) (int, error) {
	if err := leaveKeyring(); err != nil {
		return 1, err
	}
	program, err := fuseServerProgram()
	if err != nil {
		return 1, err
	}
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return 1, &os.PathError{Op: "open", Path: "/dev/fuse", Err: err}
	}
	tree, err := fuseMount(device, filepath.Base(args[0]))
	if err != nil {
		return 1, err
	}
	if err := agent.send(report{}, tree); err != nil {
		return 1, err
	}
	if err := dropAll(); err != nil {
		return 1, err
	}
	listener, err := filter.Load(program, 0)
	if err != nil {
		return 1, fmt.Errorf("load seccomp filter: %w", err)
	}
	_ = unix.Close(listener) // nothing is notified
	// What is ignored stays so in the program: its standard error is the agent,
	// which it outlives.
	signal.Ignore(unix.SIGPIPE)
	pid, err := syscall.ForkExec(args[0], args, &syscall.ProcAttr{
		// The variable makes callgate the program's fusermount: fuseserver.c.
		Env: []string{"PATH=" + os.Getenv("PATH"), "LANG=C", "_CALLGATE_FUSE=mount"},
		// Standard input is /dev/null; 3 is what fusermount hands over.
		Files: []uintptr{0, 1, 2, uintptr(device)},
	})
	if err != nil {
		return 1, &os.PathError{Op: "exec", Path: args[0], Err: err}
	}
	go fuseReady(agent, tree)
	go fuseWatch(device)
	return reap(pid)
}

func fuseServerProgram() ([]unix.SockFilter, error) {
	var profile specs.LinuxSeccomp
	if err := json.Unmarshal(fuseServerFilter, &profile); err != nil {
		return nil, fmt.Errorf("read seccomp profile: %w", err)
	}
	return filter.Build(&profile)
}

// fuseMount mounts nowhere. The connection's options are ours: the kernel checks
// modes, and all ids of this user namespace may use the mount.
func fuseMount(device int, name string) (int, error) {
	fs, err := unix.Fsopen("fuse", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, os.NewSyscallError("fsopen fuse", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for _, option := range [][2]string{
		{"source", name}, {"subtype", name}, {"fd", strconv.Itoa(device)},
		{"rootmode", "40000"}, {"user_id", "0"}, {"group_id", "0"},
	} {
		if err := unix.FsconfigSetString(fs, option[0], option[1]); err != nil {
			return -1, os.NewSyscallError("fsconfig "+option[0], err)
		}
	}
	for _, option := range []string{"default_permissions", "allow_other"} {
		if err := unix.FsconfigSetFlag(fs, option); err != nil {
			return -1, os.NewSyscallError("fsconfig "+option, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, os.NewSyscallError("fsconfig create", err)
	}
	tree, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV)
	return tree, os.NewSyscallError("fsmount", err)
}

// dropAll takes from this thread what the program must not have. The filter is
// left: it would refuse some of this.
func dropAll() error {
	for resource, limit := range map[int]uint64{
		unix.RLIMIT_CORE: 0, unix.RLIMIT_NOFILE: fuseServerFiles, unix.RLIMIT_AS: fuseServerMemory,
		unix.RLIMIT_MEMLOCK: 0, unix.RLIMIT_MSGQUEUE: 0, unix.RLIMIT_RTPRIO: 0,
	} {
		var now syscall.Rlimit
		if err := syscall.Getrlimit(resource, &now); err != nil {
			return os.NewSyscallError("getrlimit", err)
		}
		limit = min(limit, now.Max)
		// syscall's: else ForkExec puts back the RLIMIT_NOFILE of before.
		if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: limit, Max: limit}); err != nil {
			return os.NewSyscallError("setrlimit", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return os.NewSyscallError("prctl PR_SET_NO_NEW_PRIVS", err)
	}
	// EINVAL ends the kernel's list. An empty bounding set keeps execve(2) from
	// giving uid 0 its capabilities back.
	for c := uintptr(0); ; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err == unix.EINVAL {
			break
		}
		if err != nil {
			return os.NewSyscallError("prctl PR_CAPBSET_DROP", err)
		}
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData // and with them the ambient ones
	return os.NewSyscallError("capset", unix.Capset(&header, &none[0]))
}

// fuseReady waits for the first answer of the filesystem, tells the agent and
// lets go of the mount. It may wait for as long as the program lives.
func fuseReady(agent *peer, tree int) {
	var st unix.Statx_t
	var err error = unix.EINTR
	for err == unix.EINTR {
		err = unix.Statx(tree, "", unix.AT_EMPTY_PATH|unix.AT_STATX_FORCE_SYNC, unix.STATX_BASIC_STATS, &st)
	}
	_ = unix.Close(tree)
	var r report
	if err != nil {
		r.Error = fmt.Sprintf("stat root of the filesystem: %v", err)
	}
	// If nobody listens any more, there is nobody to tell.
	_ = agent.send(r, -1)
	agent.close()
}

// fuseWatch ends the program when its mount has been gone for a while: one that
// does not care for ENODEV from its device would stay for ever.
func fuseWatch(device int) {
	for {
		time.Sleep(fuseServerWatch)
		// Asked from time to time: a waiting poll would be woken by each request.
		fds := []unix.PollFd{{Fd: int32(device)}}
		if n, err := unix.Poll(fds, 0); err == nil && n > 0 && fds[0].Revents&unix.POLLERR != 0 {
			break
		}
	}
	time.Sleep(fuseServerGrace)
	// All of the pid namespace but this process, which then ends.
	_ = unix.Kill(-1, unix.SIGKILL)
}

// reap waits for the program, and for orphans, as a first process must.
func reap(program int) (int, error) {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 1, os.NewSyscallError("wait4", err)
		case pid == program && status.Signaled():
			return 128 + int(status.Signal()), nil
		case pid == program && status.Exited():
			return status.ExitStatus(), nil
		}
	}
}
