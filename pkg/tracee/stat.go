package tracee

import (
	"os"

	"golang.org/x/sys/unix"
)

// Stat is what the kernel has at hand about a file, asked without talking to
// whoever serves its filesystem (AT_STATX_DONT_SYNC).
type Stat struct {
	// MountID is the mount's number. Unique says that no other mount ever has
	// it (STATX_MNT_ID_UNIQUE, Linux 6.8); otherwise it is used again.
	MountID uint64
	Unique  bool
	Type    uint32 // S_IFMT part of the mode
	Mode    uint32 // the rest of it
	// UID and GID are as seen through the mount; one that an idmapped mount
	// does not map shows as 65534.
	UID, GID uint32
	Dev, Ino uint64
	Rdev     uint64
	// Born is the time of birth in nanoseconds, which tells an inode from the
	// next one of the same number; 0 where the filesystem keeps none.
	Born int64
	// MountRoot says that the file is the root of its mount (Linux 5.8).
	MountRoot bool
}

// Stat describes the file that the handle refers to.
func (h *Handle) Stat() (Stat, error) { return statAt(h.FD(), "", unix.AT_EMPTY_PATH) }

// StatAt describes name below the handle, a symbolic link itself.
func (h *Handle) StatAt(name string) (Stat, error) { return statAt(h.FD(), name, 0) }

// follow has statAt follow a symbolic link: AT_SYMLINK_NOFOLLOW stands for its
// absence.
const follow = unix.AT_SYMLINK_FOLLOW

func statAt(dir int, name string, flags int) (Stat, error) {
	const want = unix.STATX_TYPE | unix.STATX_MODE | unix.STATX_UID | unix.STATX_GID | unix.STATX_INO | unix.STATX_MNT_ID | unix.STATX_MNT_ID_UNIQUE | unix.STATX_BTIME
	var st unix.Statx_t
	flags |= unix.AT_STATX_DONT_SYNC | unix.AT_NO_AUTOMOUNT
	if flags&follow == 0 {
		flags |= unix.AT_SYMLINK_NOFOLLOW
	}
	flags &^= follow
	for {
		err := unix.Statx(dir, name, flags, want, &st)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return Stat{}, &os.PathError{Op: "statx", Path: name, Err: err}
		}
		break
	}
	return Stat{
		MountID:   st.Mnt_id,
		Unique:    st.Mask&unix.STATX_MNT_ID_UNIQUE != 0,
		Type:      uint32(st.Mode) & unix.S_IFMT,
		Mode:      uint32(st.Mode) &^ unix.S_IFMT,
		UID:       st.Uid,
		GID:       st.Gid,
		Dev:       unix.Mkdev(st.Dev_major, st.Dev_minor),
		Ino:       st.Ino,
		Rdev:      unix.Mkdev(st.Rdev_major, st.Rdev_minor),
		MountRoot: st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0,
		Born:      st.Btime.Sec*1e9 + int64(st.Btime.Nsec),
	}, nil
}
