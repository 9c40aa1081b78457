package mknod

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators/emulatortest"
)

const null = unix.S_IFCHR | 0o666

func TestConform(t *testing.T) {
	emulatortest.NeedRoot(t)
	dir := t.TempDir()
	path := func(n int) string { return fmt.Sprintf("%s/node%d", dir, n) }
	dev := unix.Mkdev(1, 3)
	at := int64(unix.AT_FDCWD)
	var bad []emulatortest.Policy
	for text := range badPolicies() {
		bad = append(bad, emulatortest.Policy(text))
	}
	emulatortest.Conform(t, Kind(), emulatortest.Options{
		Policy:      `allow: ["c 1:3"]`,
		BadPolicies: bad,
		Threads:     true,
		Calls: []emulatortest.Call{{
			Syscall: "mknod",
			Args: func(c *emulatortest.Caller, n int) [6]uint64 {
				return [6]uint64{c.String(path(n)), null, dev}
			},
			Pointers: []emulatortest.Pointer{{Index: 0}},
		}, {
			Syscall: "mknodat",
			Args: func(c *emulatortest.Caller, n int) [6]uint64 {
				return [6]uint64{uint64(at), c.String(path(n)), null, dev}
			},
			Pointers: []emulatortest.Pointer{{Index: 1}},
		}},
		Done: func(n int) bool { _, err := os.Lstat(path(n)); return err == nil },
		Undo: func(n int) { _ = os.Remove(path(n)) },
	})
}
