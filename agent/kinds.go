package agent

import (
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/mknod"
	"github.com/callgate/callgate/emulators/mount"
)

// Kinds are the emulators that callgate comes with. A new one is a line here.
func Kinds() []emulators.Kind {
	return []emulators.Kind{
		mknod.Kind(),
		mount.Kind(),
	}
}
