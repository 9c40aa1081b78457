//go:build linux

package pidfd

import (
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func TestInfoLayout(t *testing.T) {
	var (
		ours   pidfdInfo
		theirs unix.PidfdInfo
	)
	if size := unsafe.Sizeof(ours); size != unix.PIDFD_INFO_SIZE_VER0 {
		t.Errorf("size %d, want %d", size, unix.PIDFD_INFO_SIZE_VER0)
	}
	for _, tt := range []struct {
		name            string
		got, want, twin uintptr
	}{
		{"mask", unsafe.Offsetof(ours.mask), 0, unsafe.Offsetof(theirs.Mask)},
		{"cgroupid", unsafe.Offsetof(ours.cgroupid), 8, unsafe.Offsetof(theirs.Cgroupid)},
		{"pid", unsafe.Offsetof(ours.pid), 16, unsafe.Offsetof(theirs.Pid)},
		{"tgid", unsafe.Offsetof(ours.tgid), 20, unsafe.Offsetof(theirs.Tgid)},
		{"ppid", unsafe.Offsetof(ours.ppid), 24, unsafe.Offsetof(theirs.Ppid)},
		{"ruid", unsafe.Offsetof(ours.ruid), 28, unsafe.Offsetof(theirs.Ruid)},
		{"rgid", unsafe.Offsetof(ours.rgid), 32, unsafe.Offsetof(theirs.Rgid)},
		{"euid", unsafe.Offsetof(ours.euid), 36, unsafe.Offsetof(theirs.Euid)},
		{"egid", unsafe.Offsetof(ours.egid), 40, unsafe.Offsetof(theirs.Egid)},
		{"suid", unsafe.Offsetof(ours.suid), 44, unsafe.Offsetof(theirs.Suid)},
		{"sgid", unsafe.Offsetof(ours.sgid), 48, unsafe.Offsetof(theirs.Sgid)},
		{"fsuid", unsafe.Offsetof(ours.fsuid), 52, unsafe.Offsetof(theirs.Fsuid)},
		{"fsgid", unsafe.Offsetof(ours.fsgid), 56, unsafe.Offsetof(theirs.Fsgid)},
	} {
		if tt.got != tt.want || tt.got != tt.twin {
			t.Errorf("%s at %d, want %d (x/sys: %d)", tt.name, tt.got, tt.want, tt.twin)
		}
	}
}

func TestRequests(t *testing.T) {
	if pidfdGetInfo != 0xc040ff0b {
		t.Errorf("PIDFD_GET_INFO is %#x", uint(pidfdGetInfo))
	}
	switch runtime.GOARCH {
	case "amd64", "arm64", "riscv64", "s390x", "386", "arm":
	default:
		t.Skip("the numbers below are those of asm-generic")
	}
	if pidfdThread != 0x80 {
		t.Errorf("PIDFD_THREAD is %#x", pidfdThread)
	}
	if pidfdGetCgroupNamespace != 0xff01 || pidfdGetUTSNamespace != 0xff0a {
		t.Errorf("PIDFD_GET_*_NAMESPACE are %#x to %#x", uint(pidfdGetCgroupNamespace), uint(pidfdGetUTSNamespace))
	}
}
