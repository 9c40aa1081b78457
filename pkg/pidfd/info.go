//go:build linux

package pidfd

import (
	"os"

	"golang.org/x/sys/unix"
)

// Info is who a process or thread is. The pids are as seen from the PID
// namespace of the calling process, uids and gids as seen from its user
// namespace; an id that has no mapping there reads as the overflow id, 65534.
type Info struct {
	PID  uint32 // of the thread; of the leader, if the FD refers to a process
	TGID uint32 // of the process
	PPID uint32 // of the parent process, 0 if that is outside our PID namespace

	RUID, RGID   uint32 // real
	EUID, EGID   uint32 // effective
	SUID, SGID   uint32 // saved
	FSUID, FSGID uint32 // for file access, see setfsuid(2)

	CgroupID  uint64 // inode number of the cgroup v2 directory
	HasCgroup bool   // whether CgroupID is known; not before Linux 6.13
}

// Info returns the ids and credentials of the process's leader or, if IsThread,
// of the thread. It does not block.
//
// It asks the pidfd (PIDFD_GET_INFO, Linux 6.13), without allocating. On older
// kernels it reads /proc/PID/status and then makes sure that the number had not
// been freed; there it is more than ten times as slow.
//
// It fails with ESRCH once the process has been reaped.
func (f *FD) Info() (Info, error) {
	if err := f.acquire(); err != nil {
		return Info{}, err
	}
	defer f.release()

	raw, err := f.k.getInfo(f.fd)
	const need = unix.PIDFD_INFO_PID | unix.PIDFD_INFO_CREDS
	if err == nil && raw.mask&need == need {
		return raw.info(), nil
	}
	switch err {
	case nil:
		// It does not say what we asked for; let /proc.
	case unix.ENOTTY, unix.EINVAL:
		// Not there before 6.13. In 6.11 and 6.12 the descriptor has other
		// ioctls, which take no argument: EINVAL, because there is one.
	case unix.ESRCH:
		// Also for one that lives but whose parent is outside our PID
		// namespace, such as what "runc exec" puts into a container.
		if !f.k.unreaped(f.fd) {
			return Info{}, os.NewSyscallError("ioctl", err)
		}
	default:
		return Info{}, os.NewSyscallError("ioctl", err)
	}
	return f.infoFromProc()
}

func (f *FD) infoFromProc() (Info, error) {
	info, err := f.k.readStatus(f.pid)
	if err != nil {
		return Info{}, err
	}
	// Before this point the number could have been anybody's.
	if !f.k.unreaped(f.fd) {
		return Info{}, os.NewSyscallError("pidfd_send_signal", unix.ESRCH)
	}
	return info, nil
}

func (raw *pidfdInfo) info() Info {
	return Info{
		PID:   raw.pid,
		TGID:  raw.tgid,
		PPID:  raw.ppid,
		RUID:  raw.ruid,
		RGID:  raw.rgid,
		EUID:  raw.euid,
		EGID:  raw.egid,
		SUID:  raw.suid,
		SGID:  raw.sgid,
		FSUID: raw.fsuid,
		FSGID: raw.fsgid,

		CgroupID:  raw.cgroupid,
		HasCgroup: raw.mask&unix.PIDFD_INFO_CGROUPID != 0,
	}
}
