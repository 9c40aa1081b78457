package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// rootfs is a container's root filesystem: a folder of the host's.
type rootfs struct {
	path string
	made string // by us, and gone with us; "" for a folder that was there
}

// openRootfs takes a folder, or with "" makes one around a static busybox.
func openRootfs(path string) (*rootfs, error) {
	if path == "" {
		return makeRootfs()
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("root filesystem: %w", err)
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("root filesystem %s: no directory", path)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("root filesystem: %w", err)
	}
	if abs == "/" {
		return nil, errors.New("root filesystem /: what the container's root owns there is the host's root's")
	}
	return &rootfs{path: abs}, nil
}

func makeRootfs() (r *rootfs, err error) {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return nil, errors.New("no busybox for a root filesystem: install busybox-static, or give --rootfs")
	}
	// Mode 0700: what the container's root makes, a setuid program say, belongs
	// to the host's root, and nobody else of the host's may get to it.
	outer, err := os.MkdirTemp("", "callgate-run-")
	if err != nil {
		return nil, err
	}
	path := filepath.Join(outer, "rootfs")
	r = &rootfs{path: path, made: outer}
	defer func() {
		if err != nil {
			r.close()
			r = nil
		}
	}()
	for _, dir := range []string{"", "bin", "dev", "etc", "proc", "root", "run", "sys", "tmp", "var"} {
		if err := os.Mkdir(filepath.Join(path, dir), 0o755); err != nil {
			return r, err
		}
	}
	if err := fillRootfs(path, busybox); err != nil {
		return r, err
	}
	if err := os.Chmod(path, 0o755); err != nil {
		return r, err
	}
	return r, os.Chmod(filepath.Join(path, "tmp"), 0o777|os.ModeSticky)
}

func fillRootfs(path, busybox string) error {
	text, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(path, "bin/busybox"), text, 0o755); err != nil {
		return err
	}
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("list applets of %s: %w", busybox, err)
	}
	for _, name := range strings.Fields(string(applets)) {
		if name == "busybox" {
			continue
		}
		if err := os.Symlink("busybox", filepath.Join(path, "bin", name)); err != nil {
			return err
		}
	}
	passwd := []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
	return os.WriteFile(filepath.Join(path, "etc/passwd"), passwd, 0o644)
}

func (r *rootfs) close() {
	if r.made != "" {
		_ = os.RemoveAll(r.made) // a temporary folder: what stays harms nobody
	}
}

// mountFor makes a detached mount of the root filesystem with the ids of the
// user namespace that pid is in: what the host's root owns belongs to the
// container's.
func (r *rootfs) mountFor(pid int) (tracee.Handle, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, r.path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return tracee.Handle{}, &os.PathError{Op: "open_tree", Path: r.path, Err: err}
	}
	tree := tracee.NewHandle(fd)
	st, err := tree.Stat()
	if err == nil && st.UID < firstID {
		err = idmap(&tree, pid)
	}
	if err != nil {
		tree.Close()
		return tracee.Handle{}, fmt.Errorf("map ids of root filesystem %s: %w", r.path, err)
	}
	return tree, nil
}

func idmap(tree *tracee.Handle, pid int) error {
	p, err := pidfd.Open(pid)
	if err != nil {
		return err
	}
	defer func() { _ = p.Close() }()
	ns, err := p.Namespace(pidfd.NSUser)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(ns) }()
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
	err = unix.MountSetattr(tree.FD(), "", unix.AT_EMPTY_PATH, &attr)
	return os.NewSyscallError("mount_setattr MOUNT_ATTR_IDMAP", err)
}
