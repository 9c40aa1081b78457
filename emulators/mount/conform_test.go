package mount

import (
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators/emulatortest"
)

// TestConform: data is not among the pointers, for what is cut off by the edge
// of memory counts (TestData), and of the type NULL is the kernel's business.
func TestConform(t *testing.T) {
	emulatortest.NeedRoot(t)
	dir := folder(t)
	target := func(n int) string { return fmt.Sprintf("%s/target%d", dir, n) }
	source := func(n int) string { return fmt.Sprintf("%s/image%d", dir, n) }
	const callers = 4
	for n := range callers {
		must(t, os.Mkdir(target(n), 0o755))
		image(t, source(n))
	}
	var bad []emulatortest.Policy
	for text := range decodeErrors() {
		bad = append(bad, emulatortest.Policy(text))
	}
	emulatortest.Conform(t, Kind(), emulatortest.Options{
		Policy:      emulatortest.Policy(`allow: [{type: ext4, source: ["` + dir + `/image*"], loop: true, options: [noatime, "data=*"]}]`),
		BadPolicies: bad,
		Threads:     true,
		Calls: []emulatortest.Call{{
			Syscall: "mount",
			Args: func(c *emulatortest.Caller, n int) [6]uint64 {
				return [6]uint64{c.String(source(n)), c.String(target(n)), c.String("ext4"), unix.MS_NOATIME, c.String("data=ordered")}
			},
			Pointers: []emulatortest.Pointer{
				{Index: argSource, TooLong: unix.EINVAL, Optional: true},
				{Index: argTarget},
				{Index: argType, TooLong: unix.EINVAL, Optional: true},
			},
		}},
		Done: func(n int) bool { return mounted(t, target(n)) },
		Undo: func(n int) {
			for mounted(t, target(n)) {
				if err := unix.Unmount(target(n), unix.MNT_DETACH); err != nil {
					t.Error("umount2:", err)
					return
				}
			}
		},
	})
}
