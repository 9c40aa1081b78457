package need

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ownMounts marks a test program that runs in a mount namespace of its own.
const ownMounts = "CALLGATE_TEST_OWN_MOUNTS"

// OwnMounts is for a TestMain: it starts the test program again, once, in a
// mount namespace of its own, which is then all of the host that the agent and
// the runtimes see. What a test leaves behind there ends with it, and what
// others mount meanwhile (another package's podman, say) is nothing to it.
// Without root it does nothing.
func OwnMounts() error {
	if os.Geteuid() != 0 || os.Getenv(ownMounts) != "" {
		return nil
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find the test program: %w", err)
	}
	runtime.LockOSThread() // whose namespace execve makes the whole process's
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return os.NewSyscallError("unshare CLONE_NEWNS", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount MS_PRIVATE", err)
	}
	err = unix.Exec(self, os.Args, append(os.Environ(), ownMounts+"=1"))
	return os.NewSyscallError("execve", err)
}
