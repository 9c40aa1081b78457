package profile

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// interception is what one emulator wants of the filter.
type interception struct {
	calls  []call
	enosys []string // calls that are to look as if the kernel did not have them
}

// call is a system call to notify: those where any of match holds, or every one if there is none.
type call struct {
	name  string
	arg   uint // the argument that match looks at
	match []match
}

// match holds where arg&mask == value.
type match struct {
	bits
	// unlessZero, if not nil, is another argument; where all its 64 bits are 0 and the base allows the call, the kernel keeps it.
	unlessZero *uint
}

// interceptions is the table of emulators: a new one adds an entry. Two must not claim the same name.
func interceptions() map[string]interception {
	return map[string]interception{
		"mknod": {calls: []call{
			{name: "mknod", arg: 1, match: deviceNodes(2)},
			{name: "mknodat", arg: 2, match: deviceNodes(3)},
		}},
		"mount": {
			calls: []call{{name: "mount", arg: 3, match: agentMounts()}},
			// util-linux tries fsopen(2) first and goes on to mount(2) on no other error than ENOSYS.
			//
			// open_tree_attr (Linux 6.15) has its name in libseccomp since 2.6.1. Before, runc and crun pass over it (crun refuses it if told
			// run.oci.seccomp_fail_unknown_syscall, and the built-in base with it) and it gets the default action. That is enough: an error is
			// a refusal, and where all is allowed the kernel's checks stand. It changes what the caller may change of a mount, or gives a copy
			// of one that the caller has, which no call here lets it attach.
			enosys: []string{"fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "open_tree_attr", "mount_setattr"},
		},
	}
}

// deviceNodes holds for the types that need CAP_MKNOD. The kernel's mode is a umode_t, 16 bits, and the mask says the same; its dev is an
// unsigned, 32 bits, of which 0 is what overlayfs calls a whiteout, a character device needing no privilege since Linux 5.8 (before, the kernel
// says EPERM to it; fs/namei.c, vfs_mknod). Image builders make thousands of those, so they cost no round trip.
//
// A dev with nothing but garbage above bit 31 is a whiteout to the kernel and is notified all the same, as libseccomp compares 64
// bits; the agent has to know whiteouts anyway. To ALLOW on a masked comparison instead would overlap the NOTIFY on
// "not equal", and there libseccomp 2.5.4 decides by the order of the rules. The pair "not 0, is 0" it compiles exactly
// (one comparison with two outcomes), which the tests show for every type.
func deviceNodes(dev uint) []match {
	return []match{
		{bits: bits{unix.S_IFMT, unix.S_IFCHR}, unlessZero: &dev},
		{bits: bits{unix.S_IFMT, unix.S_IFBLK}},
	}
}

// agentMounts holds for mount(2) where the agent has work: where a filesystem is mounted, and where a remount needs more than the caller has. Binds,
// moves and changes of propagation stay with the kernel, and with what the base says about them: one that refuses mount(2) goes on refusing these.
//
// The cases are those of fs/namespace.c, path_mount, which looks for a remount first, whatever else is set, and for a new mount last. They are
// disjoint, as libseccomp 2.5.4 decides by the order of the rules where two overlap.
//
// Without the magic number below, path_mount says EINVAL to any bit from 31 up (MS_NOUSER is an int and sign-extended). Such calls are notified like
// those without, and the agent has to say the same.
func agentMounts() []match {
	const (
		remount     = unix.MS_REMOUNT | unix.MS_BIND // both: of one mount; REMOUNT alone: of its superblock
		changes     = remount | unix.MS_MOVE
		propagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
		locked      = unix.MS_NOSUID | unix.MS_NODEV
	)
	return []match{
		{bits: bits{changes | propagation, 0}},
		// Programs from before Linux 2.4 and those written like them set a magic number in the upper half, two bits of which now mean MS_PRIVATE
		// and MS_SLAVE. The kernel removes it, and with it the whole half. Below, the upper half plays no part.
		{bits: bits{changes | unix.MS_MGC_MSK, unix.MS_MGC_VAL}},
		// The kernel wants CAP_SYS_ADMIN over the superblock's user namespace, which is the initial one for what the agent mounted.
		{bits: bits{remount, unix.MS_REMOUNT}},
		// The agent's mounts have nosuid and nodev locked, and the kernel refuses a remount that leaves one of them out. As two cases: without
		// nosuid; with nosuid, without nodev.
		{bits: bits{remount | unix.MS_NOSUID, remount}},
		{bits: bits{remount | locked, remount | unix.MS_NOSUID}},
	}
}

// Emulators gives the names that [Options] takes, sorted.
func Emulators() []string {
	return slices.Sorted(maps.Keys(interceptions()))
}

// selected gives the table's entries for the names, each once, in the table's sorted order so that the output does not depend on the input's.
func selected(names []string) ([]interception, error) {
	table := interceptions()
	for _, name := range names {
		if _, ok := table[name]; !ok {
			return nil, fmt.Errorf("unknown emulator %q, known are: %s", name, strings.Join(Emulators(), ", "))
		}
	}
	var out []interception
	for _, name := range Emulators() {
		if slices.Contains(names, name) {
			out = append(out, table[name])
		}
	}
	return out, nil
}
