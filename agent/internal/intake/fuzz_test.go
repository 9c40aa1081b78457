package intake

import (
	"errors"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzRead: whatever the message says, it is read within its limit, is judged,
// and leaves no descriptor.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"ociVersion":"0.2.0","fds":["seccompFd"],"pid":7,"state":{"id":"c","pid":8,"bundle":"/"}}`))
	f.Add([]byte(`{"fds":["seccompFd","seccompFd"],"state":{"id":"c"}}`))
	f.Add([]byte(`{"fds":null,"state":{"id":"","annotations":{"a":"b"}}}`))
	f.Add([]byte(`{"pid":-1,"state":{"id":"c","pid":99999999999}}`))
	f.Add([]byte("[[[[[[[["))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, data []byte) {
		const limit = 1 << 12
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		must(t, err)
		ours, theirs := conn(t, fds[0]), conn(t, fds[1])
		defer theirs.Close()
		gift, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		must(t, err)
		go func() {
			// The other end closes when it has had enough.
			if len(data) > 0 { // package net would send a byte of its own
				_, _, _ = ours.WriteMsgUnix(data, unix.UnixRights(gift), nil)
			}
			_ = ours.Close()
			_ = unix.Close(gift)
		}()
		reg, err := read(theirs, limit)
		switch {
		case err == nil:
			t.Errorf("an eventfd is a listener: %+v", reg)
		case errors.Is(err, errSilent) != (len(data) == 0):
			t.Errorf("%d bytes: %v", len(data), err)
		}
		if reg.Listener != nil {
			t.Error("a listener comes with an error")
		}
	})
}

func conn(t *testing.T, fd int) *net.UnixConn {
	t.Helper()
	c, err := unixConn(fd)
	must(t, err)
	return c
}

// unixConn takes ownership of fd.
func unixConn(fd int) (*net.UnixConn, error) {
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close()
	c, err := net.FileConn(file)
	if err != nil {
		return nil, err
	}
	return c.(*net.UnixConn), nil
}
