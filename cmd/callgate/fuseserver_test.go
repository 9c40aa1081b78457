package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What it does is tested in emulators/mount/internal/fuseserver; here, that it
// does nothing for anybody else.

func TestFuseServerAlone(t *testing.T) {
	callgateRan(t, fuseServerName).fails(t, "requires at least 1 arg")
	callgateRan(t, fuseServerName, "--", "/bin/true").fails(t, "for the agent only")
	if help := callgateRan(t, "--help").fine(t); strings.Contains(help, fuseServerName) {
		t.Errorf("help names it:\n%s", help)
	}
}

func TestFuseServerFilter(t *testing.T) {
	program, err := fuseServerProgram()
	must(t, err)
	t.Logf("%d instructions", len(program))
}

// TestFusermount: the device goes to the socket; without one there is nothing
// to do.
func TestFusermount(t *testing.T) {
	stub := func(env ...string) *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", "-u", "--", "/mnt")
		cmd.Env = append([]string{"_CALLGATE_FUSE=mount"}, env...)
		return cmd
	}
	try(t, stub()).fine(t)
	ours, theirs, err := channel()
	must(t, err)
	defer ours.close()
	defer theirs.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	must(t, err)
	defer null.Close()
	cmd := stub("_FUSE_COMMFD=4")
	cmd.ExtraFiles = []*os.File{null, theirs}
	try(t, cmd).fine(t)
	var text [8]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := unix.Recvmsg(ours.fd, text[:], oob, unix.MSG_CMSG_CLOEXEC)
	must(t, err)
	fd, err := descriptor(oob[:oobn])
	must(t, err)
	defer unix.Close(fd)
	var st unix.Stat_t
	must(t, unix.Fstat(fd, &st))
	if n != 1 || st.Rdev != unix.Mkdev(1, 3) {
		t.Errorf("%d bytes, device %#x", n, st.Rdev)
	}
	cmd = stub("_FUSE_COMMFD=9")
	try(t, cmd).fails(t, "hand over /dev/fuse")
}
