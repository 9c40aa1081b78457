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
			calls: []call{{name: "mount", arg: 3, match: newMounts()}},
			// util-linux tries fsopen(2) first and goes on to mount(2) on no other error than ENOSYS.
			enosys: []string{"fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr"},
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

// newMounts holds for mount(2) where it makes a new mount of a filesystem (fs/namespace.c, path_mount), not where it changes or moves one.
func newMounts() []match {
	const (
		changes     = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_MOVE
		propagation = unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE
	)
	return []match{
		{bits: bits{changes | propagation, 0}},
		// Programs from before Linux 2.4 and those written like them set a magic number in the upper half, two bits of which now mean MS_PRIVATE
		// and MS_SLAVE. The kernel removes it, and with it the whole half.
		{bits: bits{changes | unix.MS_MGC_MSK, unix.MS_MGC_VAL}},
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
