package tracee

import (
	"bytes"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxMountinfo bounds /proc/TID/mountinfo: fs.mount-max mounts of some 160
// bytes each.
const maxMountinfo = 32 << 20

// searchMountinfo looks a mount up in the caller's list, for kernels before
// 6.11. The list ends at the caller's root: where a chroot is
// no mount of its own, what is below is not found, and denied.
func (t *Tracee) searchMountinfo(h *Handle) (bool, error) {
	line, err := t.mountinfo(h)
	return line != nil, err
}

// SuperOptions are the options that the filesystem behind h has now, as
// mountinfo shows them (proc_pid_mountinfo(5), field 11): "" if the caller's
// list does not have its mount.
func (t *Tracee) SuperOptions(h *Handle) (string, error) {
	line, err := t.mountinfo(h)
	if err != nil {
		return "", err
	}
	_, after, _ := bytes.Cut(line, []byte(" - "))
	fields := bytes.Fields(after)
	if len(fields) < 3 {
		return "", nil
	}
	return string(fields[2]), nil
}

// mountinfo is the line of the mount that h is on, or nil. It is found by its
// reusable id: the handle holds the mount, so that its id is not used again
// meanwhile.
func (t *Tracee) mountinfo(h *Handle) ([]byte, error) {
	var st unix.Statx_t
	err := unix.Statx(h.FD(), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil {
		return nil, os.NewSyscallError("statx", err)
	}
	text, err := t.proc.read(t.tid, "mountinfo", nil, maxMountinfo)
	if err = t.settle(err); err != nil {
		return nil, fmt.Errorf("read caller's mounts: %w", err)
	}
	want := strconv.AppendUint(nil, st.Mnt_id, 10)
	for line := range bytes.Lines(text) {
		if field, _, ok := bytes.Cut(line, []byte(" ")); ok && bytes.Equal(field, want) {
			return line, nil
		}
	}
	return nil, nil
}
