package tracee

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/pidfd"
)

// Filesystem says of the filesystem below a mount what decides how it can be
// worked on.
type Filesystem struct {
	Magic int64 // f_type of statfs(2)
	// Local says that working on it waits for nothing but this machine's
	// memory and disks: no program and no network serves it.
	Local bool
	// NoDevices says that device nodes on it do not open: it was mounted in a
	// user namespace (SB_I_NODEV), which no flag shows. Known only after
	// somebody found out: [Mounts.Learn].
	NoDevices bool
	// Tried says that NoDevices is known.
	Tried bool
}

// Mounts remembers the filesystems of one container's mounts. Safe for
// concurrent use. It remembers only by mount ids that are never used again
// (Linux 6.8); where there are none, each question is answered anew, which
// takes a statfs(2) that can block.
type Mounts struct {
	mu    sync.RWMutex // guards the rest
	seen  map[uint64]Filesystem
	owned map[ownedMount]struct{}
}

// ownedMount is a mount of a mount namespace, which it is until it is
// unmounted: none is ever moved from one namespace to another.
type ownedMount struct {
	ns pidfd.NSID
	id uint64
}

// Owned says whether the mount that st is on is known to be one of the mount
// namespace ns.
func (m *Mounts) Owned(ns pidfd.NSID, st *Stat) bool {
	if !st.Unique {
		return false
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	_, ok := m.owned[ownedMount{ns, st.MountID}]
	return ok
}

// LearnOwned records what [Tracee.OwnsMount] found out.
func (m *Mounts) LearnOwned(ns pidfd.NSID, st *Stat) {
	if !st.Unique {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.owned == nil || len(m.owned) >= maxMounts {
		m.owned = make(map[ownedMount]struct{})
	}
	m.owned[ownedMount{ns, st.MountID}] = struct{}{}
}

// maxMounts bounds what a container that mounts and mounts makes us remember.
const maxMounts = 256

// Look describes the filesystem of the file that h refers to and st describes.
// With patient false it gives ErrBlocks rather than ask the filesystem, whose
// server may never answer.
func (m *Mounts) Look(h *Handle, st *Stat, patient bool) (Filesystem, error) {
	if st.Unique {
		m.mu.RLock()
		fs, ok := m.seen[st.MountID]
		m.mu.RUnlock()
		if ok {
			return fs, nil
		}
	}
	if !patient {
		return Filesystem{}, ErrBlocks
	}
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(h.FD(), &sfs); err != nil {
		return Filesystem{}, fmt.Errorf("statfs: %w", err)
	}
	fs := Filesystem{Magic: int64(sfs.Type), Local: local(int64(sfs.Type))}
	m.remember(st, fs)
	return fs, nil
}

// Learn records whether device nodes open on the filesystem.
func (m *Mounts) Learn(st *Stat, fs Filesystem, noDevices bool) {
	fs.NoDevices, fs.Tried = noDevices, true
	// An overlay mounted inside a container may have layers that a program
	// serves; one that the host mounted has the host's.
	if fs.Magic == unix.OVERLAYFS_SUPER_MAGIC {
		fs.Local = !noDevices
	}
	m.remember(st, fs)
}

func (m *Mounts) remember(st *Stat, fs Filesystem) {
	if !st.Unique {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil || len(m.seen) >= maxMounts {
		m.seen = make(map[uint64]Filesystem)
	}
	m.seen[st.MountID] = fs
}

// local lists the filesystems that only the host can mount from a device, and
// those that live in memory. Overlay is none until it is known who mounted it.
func local(magic int64) bool {
	switch magic {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC,
		unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC, unix.RAMFS_MAGIC,
		unix.EROFS_SUPER_MAGIC_V1, unix.SQUASHFS_MAGIC, zfsMagic, bcachefsMagic:
		return true
	default:
		return false
	}
}

const (
	zfsMagic      = 0x2fc12fc1 // OpenZFS, module/os/linux/zfs/zfs_vfsops.c
	bcachefsMagic = 0xca451a4e // linux/magic.h
)
