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

	"golang.org/x/sys/unix"
)

// Runtime is an OCI runtime driven by hand: runc or crun. Its methods may be
// called concurrently for different containers.
type Runtime struct {
	name   string
	prefix []string // what stands before the runtime's own arguments
	dir    string   // state and bundles
}

// NewRunc returns runc with its state and its bundles below dir.
func NewRunc(dir string) *Runtime {
	return &Runtime{name: "runc", prefix: []string{"runc", "--root", filepath.Join(dir, "runc")}, dir: dir}
}

// crunScript shows crun a host with nothing but cgroup2: it refuses the hybrid
// layout. The mount namespace ends with it, so each command makes its own.
const crunScript = `set -e
mount --make-rprivate /
mount --bind /sys/fs/cgroup/unified "$1"
umount -R /sys/fs/cgroup
mount --move "$1" /sys/fs/cgroup
shift
exec "$@"`

// NewCrun returns crun with its state and its bundles below dir.
func NewCrun(dir string) (*Runtime, error) {
	prefix := []string{"crun", "--cgroup-manager=disabled", "--root", filepath.Join(dir, "crun")}
	var fs unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &fs); err != nil {
		return nil, os.NewSyscallError("statfs", err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		cgroup := filepath.Join(dir, "cgroup2")
		if err := os.MkdirAll(cgroup, 0o755); err != nil {
			return nil, err
		}
		prefix = append([]string{"unshare", "-m", "sh", "-c", crunScript, "sh", cgroup}, prefix...)
	}
	return &Runtime{name: "crun", prefix: prefix, dir: dir}, nil
}

// Name implements [Engine].
func (r *Runtime) Name() string { return r.name }

func (r *Runtime) command(ctx context.Context, args ...string) *exec.Cmd {
	args = append(append([]string{}, r.prefix[1:]...), args...)
	return exec.CommandContext(ctx, r.prefix[0], args...)
}

// output runs a command with files as its standard streams: a container
// inherits them, and waiting for the end of a pipe would be waiting for it.
func (r *Runtime) output(cmd *exec.Cmd) ([]byte, error) {
	stdout, err := os.CreateTemp(r.dir, "stdout-")
	if err != nil {
		return nil, err
	}
	defer discard(stdout)
	stderr, err := os.CreateTemp(r.dir, "stderr-")
	if err != nil {
		return nil, err
	}
	defer discard(stderr)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	runErr := cmd.Run()
	out, err := os.ReadFile(stdout.Name())
	if runErr != nil {
		text, _ := os.ReadFile(stderr.Name())
		return out, failed(cmd, runErr, text)
	}
	return out, err
}

func discard(f *os.File) {
	f.Close()
	os.Remove(f.Name())
}

func (r *Runtime) bundle(c Container) (string, error) {
	dir := filepath.Join(r.dir, "bundle-"+c.ID)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, writeBundle(dir, c)
}

// Run implements [Engine].
func (r *Runtime) Run(ctx context.Context, c Container) ([]byte, error) {
	dir, err := r.bundle(c)
	if err != nil {
		return nil, err
	}
	out, err := r.output(r.command(ctx, "run", "--bundle", dir, c.ID))
	if err != nil {
		// The runtime deletes what ended by itself; the context may have ended first.
		err = errors.Join(err, r.Delete(c.ID))
	}
	return out, err
}

// Create makes the container, which waits for [Runtime.Start]. What it prints
// goes to stdout, which may be nil.
func (r *Runtime) Create(ctx context.Context, c Container, stdout *os.File) error {
	dir, err := r.bundle(c)
	if err != nil {
		return err
	}
	cmd := r.command(ctx, "create", "--bundle", dir, c.ID)
	if stdout == nil {
		_, err = r.output(cmd)
		return err
	}
	stderr, err := os.CreateTemp(r.dir, "stderr-")
	if err != nil {
		return err
	}
	defer discard(stderr)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	if err := cmd.Run(); err != nil {
		text, _ := os.ReadFile(stderr.Name())
		return failed(cmd, err, text)
	}
	return nil
}

// Start lets a created container run its process.
func (r *Runtime) Start(ctx context.Context, id string) error {
	_, err := r.output(r.command(ctx, "start", id))
	return err
}

// Exec runs one more process in a running container, to its end, with the
// capabilities and no_new_privs of c.
func (r *Runtime) Exec(ctx context.Context, c Container, args ...string) ([]byte, error) {
	config, err := json.Marshal(process(c, args))
	if err != nil {
		return nil, err
	}
	file, err := os.CreateTemp(r.dir, "process-")
	if err != nil {
		return nil, err
	}
	defer discard(file)
	if _, err := file.Write(config); err != nil {
		return nil, err
	}
	return r.output(r.command(ctx, "exec", "--process", file.Name(), c.ID))
}

// InitPID is the host's number of the container's first process.
func (r *Runtime) InitPID(ctx context.Context, id string) (int, error) {
	out, err := r.output(r.command(ctx, "state", id))
	if err != nil {
		return 0, err
	}
	var state struct {
		PID int `json:"pid"`
	}
	if err := json.Unmarshal(out, &state); err != nil {
		return 0, fmt.Errorf("read state: %w", err)
	}
	if state.PID <= 1 {
		return 0, fmt.Errorf("container %q has pid %d", id, state.PID)
	}
	return state.PID, nil
}

// Kill ends the first process of a container with SIGKILL, behind the
// runtime's back.
func (r *Runtime) Kill(ctx context.Context, id string) error {
	pid, err := r.InitPID(ctx, id)
	if err != nil {
		return err
	}
	return os.NewSyscallError("kill", syscall.Kill(pid, syscall.SIGKILL))
}

// Delete ends and removes a container; one that is not there is no error.
func (r *Runtime) Delete(id string) error {
	cmd := r.command(context.Background(), "delete", "--force", id)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	err := cmd.Run()
	if err != nil && strings.Contains(stderr.String(), "does not exist") {
		return nil
	}
	if err != nil {
		return failed(cmd, err, stderr.Bytes())
	}
	return nil
}
