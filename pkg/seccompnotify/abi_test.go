package seccompnotify

import (
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// TestABI compares with include/uapi/linux/seccomp.h.
func TestABI(t *testing.T) {
	var d Data
	var n Notification
	var r response
	var a addfd
	for _, c := range []struct {
		name      string
		got, want uintptr
	}{
		{"sizeof seccomp_data", unsafe.Sizeof(d), 64},
		{"seccomp_data.nr", unsafe.Offsetof(d.NR), 0},
		{"seccomp_data.arch", unsafe.Offsetof(d.Arch), 4},
		{"seccomp_data.instruction_pointer", unsafe.Offsetof(d.InstructionPointer), 8},
		{"seccomp_data.args", unsafe.Offsetof(d.Args), 16},
		{"sizeof seccomp_notif", unsafe.Sizeof(n), 80},
		{"seccomp_notif.id", unsafe.Offsetof(n.ID), 0},
		{"seccomp_notif.pid", unsafe.Offsetof(n.PID), 8},
		{"seccomp_notif.flags", unsafe.Offsetof(n.Flags), 12},
		{"seccomp_notif.data", unsafe.Offsetof(n.Data), 16},
		{"sizeof seccomp_notif_resp", unsafe.Sizeof(r), 24},
		{"seccomp_notif_resp.id", unsafe.Offsetof(r.id), 0},
		{"seccomp_notif_resp.val", unsafe.Offsetof(r.val), 8},
		{"seccomp_notif_resp.error", unsafe.Offsetof(r.errno), 16},
		{"seccomp_notif_resp.flags", unsafe.Offsetof(r.flags), 20},
		{"sizeof seccomp_notif_addfd", unsafe.Sizeof(a), 24},
		{"seccomp_notif_addfd.id", unsafe.Offsetof(a.id), 0},
		{"seccomp_notif_addfd.flags", unsafe.Offsetof(a.flags), 8},
		{"seccomp_notif_addfd.srcfd", unsafe.Offsetof(a.srcfd), 12},
		{"seccomp_notif_addfd.newfd", unsafe.Offsetof(a.newfd), 16},
		{"seccomp_notif_addfd.newfd_flags", unsafe.Offsetof(a.newfdFlags), 20},
		{"sizeof seccomp_notif_sizes", unsafe.Sizeof(Sizes{}), 6},
		// The size of an ioctl's argument is part of its number.
		{"SECCOMP_IOCTL_NOTIF_RECV", unix.SECCOMP_IOCTL_NOTIF_RECV >> 16 & 0x1fff, unsafe.Sizeof(n)},
		{"SECCOMP_IOCTL_NOTIF_SEND", unix.SECCOMP_IOCTL_NOTIF_SEND >> 16 & 0x1fff, unsafe.Sizeof(r)},
		{"SECCOMP_IOCTL_NOTIF_ADDFD", unix.SECCOMP_IOCTL_NOTIF_ADDFD >> 16 & 0x1fff, unsafe.Sizeof(a)},
		{"SECCOMP_ADDFD_FLAG_SETFD", uintptr(AddFDSet), unix.SECCOMP_ADDFD_FLAG_SETFD},
		{"SECCOMP_ADDFD_FLAG_SEND", uintptr(AddFDSend), unix.SECCOMP_ADDFD_FLAG_SEND},
		{"SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP", uintptr(SyncWakeUp), unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP},
		{"SECCOMP_USER_NOTIF_FLAG_CONTINUE", flagContinue, unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE},
	} {
		if c.got != c.want {
			t.Errorf("%s is %d, the kernel's %d", c.name, c.got, c.want)
		}
	}
}

func TestUsable(t *testing.T) {
	if err := Usable(); err != nil {
		t.Fatal(err)
	}
	s, err := KernelSizes()
	if err != nil || s != (Sizes{Notification: 80, Response: 24, Data: 64}) {
		t.Fatalf("KernelSizes() = %+v, %v", s, err)
	}
}

func TestHasFilterFlag(t *testing.T) {
	for _, c := range []struct {
		name  string
		flags uintptr
		want  bool
	}{
		{"none", 0, true},
		{"NEW_LISTENER", unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, true},
		{"WAIT_KILLABLE_RECV alone", unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, false},
		{"unknown", 1 << 30, false},
		{"known with unknown", unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | 1<<30, false},
	} {
		if got, err := HasFilterFlag(c.flags); got != c.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", c.name, got, err, c.want)
		}
	}
	got, err := HasFilterFlag(unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV | unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)
	if err != nil || got != kernelAtLeast(t, 5, 19) {
		t.Errorf("WAIT_KILLABLE_RECV with NEW_LISTENER: %v, %v", got, err)
	}
}
