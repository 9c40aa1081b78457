// Package engine starts containers under the runtimes that a user of callgate
// has: runc and crun by their bundles, podman on top.
package engine

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// HostID is what id 0 of a container with a user namespace is on the host.
const HostID = 100000

// IDs is how many ids such a container has.
const IDs = 65536

// Container says what to run. Its zero value lacks ID, Rootfs and Args.
type Container struct {
	ID              string
	Rootfs          string // made by [MakeRootfs], one per container
	Args            []string
	UserNamespace   bool
	NoNewPrivileges bool
	Seccomp         *specs.LinuxSeccomp // nil: none
	Annotations     map[string]string
	DropMknod       bool          // leaves CAP_MKNOD out of every set
	Mounts          []specs.Mount // besides those of every container; not with podman
}

// Engine runs a container to its end.
type Engine interface {
	// Name is the engine's program.
	Name() string
	// Run returns the standard output of the container's first process. The
	// error holds its standard error. Nothing is left behind, whatever happens.
	Run(ctx context.Context, c Container) ([]byte, error)
}

// capabilities are what the probe's scenarios use.
var capabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETPCAP", "CAP_SYS_CHROOT", "CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SETFCAP",
}

func (c Container) capabilities() []string {
	if !c.DropMknod {
		return capabilities
	}
	var kept []string
	for _, name := range capabilities {
		if name != "CAP_MKNOD" {
			kept = append(kept, name)
		}
	}
	return kept
}

// MakeRootfs makes a root filesystem at dir: busybox with its applets and the
// given programs in /bin, /work for the probe, and /unmapped, which belongs to
// nobody that a user namespace maps. With userNamespace everything else
// belongs to the container's root.
func MakeRootfs(dir string, userNamespace bool, programs ...string) error {
	for _, name := range []string{"bin", "dev", "etc", "proc", "run", "sys", "tmp", "work", "unmapped", ".old"} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	for _, program := range append(programs, busybox) {
		data, err := os.ReadFile(program)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "bin", filepath.Base(program)), data, 0o755); err != nil {
			return err
		}
	}
	for _, applet := range []string{"sh", "sleep", "mknod", "ls", "cat", "mkdir", "stat", "true", "echo"} {
		if err := os.Symlink("busybox", filepath.Join(dir, "bin", applet)); err != nil {
			return err
		}
	}
	if !userNamespace {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if path == filepath.Join(dir, "unmapped") {
			return nil
		}
		return os.Lchown(path, HostID, HostID)
	})
}

// failed describes a command that did, with its standard error.
func failed(cmd *exec.Cmd, err error, stderr []byte) error {
	return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, stderr)
}
