package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
)

// initName is the hidden sub-command that is a container's first process.
const initName = "container-init"

// initChannel is the descriptor of its end of the channel.
const initChannel = 3

func initCommand() *cobra.Command {
	return &cobra.Command{
		Use:    initName,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			unix.CloseOnExec(initChannel)
			parent := &peer{initChannel}
			// Only comes back if it failed, and tells the parent, whose error
			// it then is.
			err := containerInit(parent)
			if parent.send(report{Error: err.Error()}, -1) != nil {
				return err
			}
			return exitStatus(1)
		},
	}
}

// containerInit sets the container up from the inside and becomes its command.
func containerInit(parent *peer) error {
	// The filter is the thread's, and the thread is what execve(2) keeps.
	runtime.LockOSThread()
	if err := leaveKeyring(); err != nil {
		return err
	}
	var p plan
	root, err := parent.receive(&p)
	if err != nil {
		return err
	}
	if err := enterRoot(root); err != nil {
		return err
	}
	path, err := lookPath(p.Command[0])
	if err != nil {
		return err
	}
	listener := -1
	if len(p.Filter) > 0 {
		if listener, err = filter.Load(p.Filter, 0); err != nil {
			return fmt.Errorf("load seccomp filter: %w", err)
		}
	}
	if err := parent.send(report{}, listener); err != nil {
		return err
	}
	if listener >= 0 {
		_ = unix.Close(listener)
	}
	if _, err := parent.receive(&plan{}); err != nil {
		return err
	}
	return &os.PathError{Op: "exec", Path: path, Err: syscall.Exec(path, p.Command, environment())}
}

// leaveKeyring puts an empty session keyring in the place of the operator's,
// whose keys are anybody's who possesses it, whatever his ids.
func leaveKeyring() error {
	_, _, errno := unix.RawSyscall(unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, 0, 0)
	if errno != 0 && errno != unix.ENOSYS {
		return os.NewSyscallError("keyctl KEYCTL_JOIN_SESSION_KEYRING", errno)
	}
	return nil
}

func environment() []string {
	return []string{"PATH=" + searchPath, "HOME=/root", "TERM=xterm", "container=callgate"}
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func lookPath(name string) (string, error) {
	if err := os.Setenv("PATH", searchPath); err != nil {
		return "", err
	}
	return exec.LookPath(name)
}

// enterRoot makes the detached mount root the root directory, with what every
// container has in it.
func enterRoot(root int) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount MS_PRIVATE", err)
	}
	// Anywhere: it becomes the root at once.
	if err := unix.MoveMount(root, "", unix.AT_FDCWD, "/tmp", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := unix.Fchdir(root); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	_ = unix.Close(root)
	if err := fillRoot(); err != nil {
		return err
	}
	// pivot_root(2), NOTES: the old root ends up over the new one, and goes.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount2", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return os.NewSyscallError("chdir", err)
	}
	return os.NewSyscallError("sethostname", unix.Sethostname([]byte("callgate")))
}

// fillRoot mounts below the working directory what a container expects.
func fillRoot() error {
	mounts := []struct {
		source, target, fstype string
		flags                  uintptr
		data                   string
	}{
		{"proc", "proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"sysfs", "sys", "sysfs", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
		{"tmpfs", "dev", "tmpfs", unix.MS_NOSUID | unix.MS_STRICTATIME, "mode=755,size=65536k"},
		{"devpts", "dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"},
		{"tmpfs", "dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, "mode=1777,size=65536k"},
	}
	for _, m := range mounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
			return &os.PathError{Op: "mount", Path: "/" + m.target, Err: err}
		}
	}
	return fillDev()
}

// fillDev gives the container the host's harmless devices and the usual links.
func fillDev() error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		target := filepath.Join("dev", name)
		f, err := os.OpenFile(target, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, target, "", unix.MS_BIND, ""); err != nil {
			return &os.PathError{Op: "bind", Path: "/dev/" + name, Err: err}
		}
	}
	var errs []error
	for _, link := range [][2]string{
		{"pts/ptmx", "dev/ptmx"}, {"/proc/self/fd", "dev/fd"}, {"/proc/self/fd/0", "dev/stdin"},
		{"/proc/self/fd/1", "dev/stdout"}, {"/proc/self/fd/2", "dev/stderr"},
	} {
		errs = append(errs, os.Symlink(link[0], link[1]))
	}
	return errors.Join(errs...)
}
