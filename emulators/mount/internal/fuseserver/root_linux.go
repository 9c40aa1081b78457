package fuseserver

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// What is where in the program's root directory.
const (
	imageName    = "image"
	mountName    = "mnt" // an empty directory: see the package's comment
	programDir   = "/program"
	launcherDir  = "/callgate"
	launcherPath = launcherDir + "/callgate"
)

// maxCopy is the size in bytes of the largest program that is copied.
const maxCopy = 16 << 20

// root is the program's root directory while it is built: a tmpfs.
type root struct{ dir tracee.Handle }

// enterRoot makes the calling thread's mount namespace one of its own and its
// root directory a new one with what the plan needs, read-only. Nothing of the
// host is left in reach but what is bound.
func enterRoot(p *plan) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // implies CLONE_FS
		return os.NewSyscallError("unshare CLONE_NEWNS", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return os.NewSyscallError("mount MS_PRIVATE", err)
	}
	unix.Umask(0) // this thread's
	dir, err := newTmpfs()
	if err != nil {
		return err
	}
	r := &root{dir: dir}
	defer r.dir.Close()
	// Anywhere: it becomes the root at once.
	if err := unix.MoveMount(dir.FD(), "", unix.AT_FDCWD, "/proc", unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return os.NewSyscallError("move_mount", err)
	}
	if err := r.fill(p); err != nil {
		return err
	}
	if err := setattr(&r.dir, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID, 0); err != nil {
		return err
	}
	unix.Umask(0o022)
	return r.pivot()
}

func (r *root) pivot() error {
	if err := unix.Fchdir(r.dir.FD()); err != nil {
		return os.NewSyscallError("fchdir", err)
	}
	// pivot_root(2), NOTES: the old root ends up over the new one, and goes.
	if err := unix.PivotRoot(".", "."); err != nil {
		return os.NewSyscallError("pivot_root", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return os.NewSyscallError("umount2", err)
	}
	return os.NewSyscallError("chdir", unix.Chdir("/"))
}

// newTmpfs is a tmpfs of the initial user namespace, whose device nodes open.
func newTmpfs() (tracee.Handle, error) {
	fs, err := unix.Fsopen("tmpfs", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return tracee.Handle{}, os.NewSyscallError("fsopen", err)
	}
	defer func() { _ = unix.Close(fs) }()
	for key, value := range map[string]string{"mode": "0755", "size": "32M", "nr_inodes": "256"} {
		if err := unix.FsconfigSetString(fs, key, value); err != nil {
			return tracee.Handle{}, os.NewSyscallError("fsconfig "+key, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return tracee.Handle{}, os.NewSyscallError("fsconfig create", err)
	}
	dir, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return tracee.Handle{}, os.NewSyscallError("fsmount", err)
	}
	return tracee.NewHandle(dir), nil
}

func (r *root) fill(p *plan) error {
	for _, name := range []string{"dev", "etc", mountName, programDir[1:], launcherDir[1:]} {
		if err := r.mkdir(name); err != nil {
			return err
		}
	}
	for _, node := range []struct {
		name string
		dev  uint64
	}{{"dev/null", unix.Mkdev(1, 3)}, {"dev/urandom", unix.Mkdev(1, 9)}, {"dev/fuse", unix.Mkdev(10, 229)}} {
		// The host's own may be for root only.
		if err := unix.Mknodat(r.dir.FD(), node.name, unix.S_IFCHR|0o666, int(node.dev)); err != nil {
			return &os.PathError{Op: "mknodat", Path: node.name, Err: err}
		}
	}
	// What the loader and a dynamically linked program need.
	for _, name := range []string{
		"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32",
		"etc/ld.so.cache", "etc/ld.so.conf", "etc/ld.so.conf.d", "etc/alternatives",
	} {
		if err := r.fromHost(name); err != nil {
			return err
		}
	}
	if err := r.program(p); err != nil {
		return fmt.Errorf("program: %w", err)
	}
	if err := r.launcher(p.Launcher[0]); err != nil {
		return fmt.Errorf("launcher: %w", err)
	}
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC)
	if p.ReadOnly {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err := setattr(p.Source, attr, 0); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	if err := r.file(imageName); err != nil {
		return err
	}
	if err := r.place(p.Source, imageName); err != nil {
		return fmt.Errorf("source: %w", err)
	}
	return nil
}

// fromHost binds a directory or a file of the host read-only, or makes the same
// symbolic link; what the host does not have stays away.
func (r *root) fromHost(name string) error {
	host := "/" + name
	info, err := os.Lstat(host)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&os.ModeSymlink != 0:
		target, err := os.Readlink(host)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(target, r.dir.FD(), name); err != nil {
			return &os.PathError{Op: "symlinkat", Path: name, Err: err}
		}
		return nil
	case info.IsDir():
		err = r.mkdir(name)
	default:
		err = r.file(name)
	}
	if err != nil {
		return err
	}
	return r.bind(host, name)
}

// bind binds a file or a directory of the host, read-only, with all that is
// mounted below it.
func (r *root) bind(host, name string) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, host, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: host, Err: err}
	}
	tree := tracee.NewHandle(fd)
	defer tree.Close()
	if err := setattr(&tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, unix.AT_RECURSIVE); err != nil {
		return err
	}
	return r.place(&tree, name)
}

// program puts the program where it is started, by its own name, which ps(1)
// shows. A binary becomes a copy that may be executed and not read: then the
// kernel makes the process undumpable (would_dump, fs/exec.c) for all but the
// host's root, and the container cannot trace it to get at the image beyond
// what the filesystem shows. A script is read by its interpreter.
func (r *root) program(p *plan) error {
	name := programDir[1:] + "/" + p.name
	if err := r.file(name); err != nil {
		return err
	}
	f, err := os.Open(p.program)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var magic [4]byte
	_, err = f.ReadAt(magic[:], 0)
	if err != nil || string(magic[:]) != "\x7fELF" || info.Size() > maxCopy {
		return r.bind(p.program, name)
	}
	fd, err := unix.Openat(r.dir.FD(), name, unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "openat", Path: name, Err: err}
	}
	out := os.NewFile(uintptr(fd), name)
	_, err = io.Copy(out, f)
	return errors.Join(err, out.Chmod(0o111), out.Close())
}

// launcher puts callgate where it is started, and as the fusermount that the
// program's library finds: the one in PATH, and in place of the host's, which
// libfuse knows by its full path and which could do nothing in here.
func (r *root) launcher(host string) error {
	for _, name := range []string{filepath.Base(launcherPath), "fusermount", "fusermount3"} {
		name = launcherDir[1:] + "/" + name
		if err := r.file(name); err != nil {
			return err
		}
		if err := r.bind(host, name); err != nil {
			return err
		}
	}
	for _, name := range []string{"bin/fusermount", "bin/fusermount3", "usr/bin/fusermount", "usr/bin/fusermount3", "usr/local/bin/fusermount", "usr/local/bin/fusermount3"} {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		fd, err := unix.Openat2(r.dir.FD(), name, &how)
		if err != nil {
			continue // the host has none
		}
		err = r.cover(host, fd)
		_ = unix.Close(fd)
		if err != nil {
			return err
		}
	}
	return nil
}

// cover binds a file of the host onto the file at.
func (r *root) cover(host string, at int) error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, host, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return &os.PathError{Op: "open_tree", Path: host, Err: err}
	}
	tree := tracee.NewHandle(fd)
	defer tree.Close()
	if err := setattr(&tree, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV, 0); err != nil {
		return err
	}
	err = unix.MoveMount(fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	return os.NewSyscallError("move_mount", err)
}

func (r *root) mkdir(name string) error {
	if err := unix.Mkdirat(r.dir.FD(), name, 0o755); err != nil {
		return &os.PathError{Op: "mkdirat", Path: name, Err: err}
	}
	return nil
}

// file makes an empty file.
func (r *root) file(name string) error {
	fd, err := unix.Openat(r.dir.FD(), name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return &os.PathError{Op: "openat", Path: name, Err: err}
	}
	return unix.Close(fd)
}

func (r *root) place(tree *tracee.Handle, name string) error {
	err := unix.MoveMount(tree.FD(), "", r.dir.FD(), name, unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil {
		return &os.PathError{Op: "move_mount", Path: name, Err: err}
	}
	return nil
}

func setattr(tree *tracee.Handle, set uint64, flags uint) error {
	attr := unix.MountAttr{Attr_set: set}
	return os.NewSyscallError("mount_setattr", unix.MountSetattr(tree.FD(), "", unix.AT_EMPTY_PATH|flags, &attr))
}
