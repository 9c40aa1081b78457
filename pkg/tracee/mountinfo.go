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

// searchMountinfo looks a mount up in the caller's list by its reusable id,
// for kernels before 6.11. The file holds the mount, so that its id is not
// used again meanwhile. The list ends at the caller's root: where a chroot is
// no mount of its own, what is below is not found, and denied.
func (t *Tracee) searchMountinfo(h *Handle) (bool, error) {
	var st unix.Statx_t
	err := unix.Statx(h.FD(), "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_MNT_ID, &st)
	if err != nil {
		return false, os.NewSyscallError("statx", err)
	}
	text, err := t.proc.read(t.tid, "mountinfo", nil, maxMountinfo)
	if err = t.settle(err); err != nil {
		return false, fmt.Errorf("read caller's mounts: %w", err)
	}
	want := strconv.AppendUint(nil, st.Mnt_id, 10)
	for line := range bytes.Lines(text) {
		if field, _, ok := bytes.Cut(line, []byte(" ")); ok && bytes.Equal(field, want) {
			return true, nil
		}
	}
	return false, nil
}
