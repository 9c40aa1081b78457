package filter

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

func auditArch(t *testing.T) uint32 {
	t.Helper()
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	}
	t.Skipf("no AUDIT_ARCH for %s here", runtime.GOARCH)
	return 0
}
