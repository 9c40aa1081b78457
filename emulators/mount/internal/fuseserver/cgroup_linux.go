package fuseserver

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroup is a program's own, in the v2 hierarchy. nil is none.
type cgroup struct {
	path string
	dir  *os.File
}

const (
	// maxTasks: libfuse 2 makes a thread for each request in flight.
	maxTasks = "256"
	// maxMemory in bytes, page cache of what it writes to the image included.
	maxMemory = "536870912"
)

// newCgroup makes a cgroup below the agent's own. Without one the program runs
// all the same: then, or if it has no limits, the sentence says so.
func newCgroup(name string) (*cgroup, string) {
	g, err := makeCgroup(name)
	if err != nil {
		return nil, fmt.Sprintf("FUSE program runs without a cgroup of its own: %v", err)
	}
	var missing []string
	for _, limit := range [][2]string{{"pids.max", maxTasks}, {"memory.max", maxMemory}} {
		// There, where the parent's cgroup.subtree_control has the controller:
		// with systemd, Delegate= and DelegateSubgroup=. Not ours to change.
		err := os.WriteFile(filepath.Join(g.path, limit[0]), []byte(limit[1]), 0)
		if err != nil {
			missing = append(missing, limit[0])
		}
	}
	if len(missing) > 0 {
		return g, "cgroup of FUSE program has no " + strings.Join(missing, ", ")
	}
	return g, ""
}

func makeCgroup(name string) (*cgroup, error) {
	if name == "" || name != filepath.Base(name) || name[0] == '.' {
		return nil, fmt.Errorf("bad cgroup name %q", name)
	}
	parent, err := ownCgroup()
	if err != nil {
		return nil, err
	}
	g := &cgroup{path: filepath.Join(parent, name)}
	err = os.Mkdir(g.path, 0o755)
	if errors.Is(err, os.ErrExist) {
		// An agent's before us that went before the program. It cannot be
		// removed while it is in use.
		if err := unix.Rmdir(g.path); err != nil {
			return nil, &os.PathError{Op: "rmdir", Path: g.path, Err: err}
		}
		err = os.Mkdir(g.path, 0o755)
	}
	if err != nil {
		return nil, err
	}
	if g.dir, err = os.Open(g.path); err != nil {
		return nil, errors.Join(err, unix.Rmdir(g.path))
	}
	return g, nil
}

// ownCgroup is the agent's directory in the v2 hierarchy, which is not the first
// one on hosts that have v1 besides.
func ownCgroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(text)) {
		own, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
		if !ok {
			continue
		}
		for _, mount := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
			var st unix.Statfs_t
			if unix.Statfs(mount, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
				return filepath.Join(mount, own), nil
			}
		}
	}
	return "", errors.New("no cgroup v2 hierarchy")
}

func (g *cgroup) fd() int {
	if g == nil {
		return -1
	}
	return int(g.dir.Fd())
}

// remove kills what is left in the cgroup and removes it.
func (g *cgroup) remove() {
	if g == nil {
		return
	}
	_ = g.dir.Close()
	// Linux 5.14. All are in a pid namespace that has ended.
	_ = os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
	// Busy until the kernel is done with the last of them.
	for range 100 {
		if err := unix.Rmdir(g.path); err != unix.EBUSY && err != unix.EINTR {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}
