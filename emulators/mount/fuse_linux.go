package mount

import (
	"context"

	"github.com/callgate/callgate/pkg/tracee"
)

// served are one container's FUSE programs.
type served struct{}

func (m *mounter) serve(ctx context.Context) (tracee.Handle, error) {
	panic("not yet")
}
