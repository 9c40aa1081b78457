package engine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// Podman runs containers by podman on runc, with storage of its own. There is
// no crun here: podman's would need the private mount namespace that NewCrun
// gives its own.
type Podman struct {
	dir string
}

// NewPodman returns podman with everything it keeps below dir.
func NewPodman(dir string) *Podman { return &Podman{dir: dir} }

// Name implements [Engine].
func (*Podman) Name() string { return "podman" }

func (p *Podman) command(ctx context.Context, args ...string) *exec.Cmd {
	at := func(name string) string { return filepath.Join(p.dir, "podman", name) }
	global := []string{
		"--root", at("root"), "--runroot", at("run"), "--tmpdir", at("tmp"),
		"--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file",
		"--runtime", "runc", "--log-level", "error",
	}
	return exec.CommandContext(ctx, "podman", append(global, args...)...)
}

// Run implements [Engine].
func (p *Podman) Run(ctx context.Context, c Container) (_ []byte, err error) {
	args := []string{
		"run", "--rm", "--name", c.ID, "--network", "none", "--log-driver", "none",
		"--cgroup-parent", "/" + c.ID,
		// Root without CAP_SYS_RESOURCE may not raise them to podman's defaults.
		"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024",
		"--cap-drop", "all",
	}
	for _, name := range c.capabilities() {
		args = append(args, "--cap-add", name)
	}
	for key, value := range c.Annotations {
		args = append(args, "--annotation", key+"="+value)
	}
	if c.UserNamespace {
		ids := fmt.Sprintf("0:%d:%d", HostID, IDs)
		args = append(args, "--uidmap", ids, "--gidmap", ids)
	}
	if c.NoNewPrivileges {
		args = append(args, "--security-opt", "no-new-privileges")
	}
	if c.Seccomp != nil {
		profile, err := json.Marshal(c.Seccomp)
		if err != nil {
			return nil, err
		}
		file := filepath.Join(p.dir, c.ID+"-seccomp.json")
		if err := os.WriteFile(file, profile, 0o644); err != nil {
			return nil, err
		}
		args = append(args, "--security-opt", "seccomp="+file)
	}
	args = append(append(args, "--rootfs", c.Rootfs), c.Args...)

	cmd := p.command(ctx, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	defer func() { err = errors.Join(err, p.remove(c.ID)) }()
	if err := cmd.Run(); err != nil {
		return stdout.Bytes(), failed(cmd, err, stderr.Bytes())
	}
	return stdout.Bytes(), nil
}

// remove ends what --rm has not removed, and --rm's own remnants.
func (p *Podman) remove(id string) error {
	cmd := p.command(context.Background(), "rm", "--force", "--ignore", "--time", "0", id)
	if out, err := cmd.CombinedOutput(); err != nil && !strings.Contains(string(out), "no such container") {
		return failed(cmd, err, out)
	}
	removeCgroup(id)
	return nil
}

// removeCgroup takes away the parent cgroup that podman makes and leaves, in
// every hierarchy. Only empty ones go.
func removeCgroup(name string) {
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		// Deepest first.
		for _, below := range []string{"/*/*", "/*", ""} {
			found, _ := filepath.Glob(filepath.Join(pattern, name) + below)
			for _, dir := range found {
				_ = syscall.Rmdir(dir)
			}
		}
	}
}
