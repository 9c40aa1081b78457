package mount

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/emulatortest"
)

func TestDecode(t *testing.T) {
	const magic = unix.MS_MGC_VAL
	for _, c := range []struct {
		name  string
		flags uint64
		want  uint64
		op    operation
	}{
		{"none", 0, 0, operationNew},
		{"all that a new mount may have", allFlags, allFlags, operationNew},
		{"nameless", unix.MS_SILENT | unix.MS_MANDLOCK | unix.MS_I_VERSION | unix.MS_POSIXACL, unix.MS_SILENT | unix.MS_MANDLOCK | unix.MS_I_VERSION | unix.MS_POSIXACL, operationNew},
		{"magic", magic, 0, operationNew},
		{"magic and flags", magic | unix.MS_RDONLY | unix.MS_BIND, unix.MS_RDONLY | unix.MS_BIND, operationKernels},
		{"magic takes what is above", magic | unix.MS_REMOUNT | 1<<40, unix.MS_REMOUNT, operationRemount},
		{"nearly magic", magic | unix.MS_UNBINDABLE, magic | unix.MS_UNBINDABLE, operationKernels},
		{"bit 31", 1 << 31, 1 << 31, operationKernels},
		{"bit 32", 1 << 32, 1 << 32, operationKernels},
		{"bit 63 and remount", 1<<63 | unix.MS_REMOUNT, 1<<63 | unix.MS_REMOUNT, operationKernels},
		{"all", ^uint64(0), ^uint64(0), operationKernels},
		{"bit 30", 1 << 30, 1 << 30, operationNew}, // MS_ACTIVE, dropped by the kernel
		{"remount", unix.MS_REMOUNT | unix.MS_RDONLY, unix.MS_REMOUNT | unix.MS_RDONLY, operationRemount},
		{"remount before bind", unix.MS_REMOUNT | unix.MS_BIND, unix.MS_REMOUNT | unix.MS_BIND, operationRemount},
		{"remount before propagation", unix.MS_REMOUNT | unix.MS_PRIVATE | unix.MS_MOVE, unix.MS_REMOUNT | unix.MS_PRIVATE | unix.MS_MOVE, operationRemount},
		{"bind", unix.MS_BIND, unix.MS_BIND, operationKernels},
		{"recursive bind", unix.MS_BIND | unix.MS_REC, unix.MS_BIND | unix.MS_REC, operationKernels},
		{"move", unix.MS_MOVE, unix.MS_MOVE, operationKernels},
		{"shared", unix.MS_SHARED, unix.MS_SHARED, operationKernels},
		{"private", unix.MS_PRIVATE | unix.MS_REC, unix.MS_PRIVATE | unix.MS_REC, operationKernels},
		{"slave", unix.MS_SLAVE, unix.MS_SLAVE, operationKernels},
		{"unbindable", unix.MS_UNBINDABLE, unix.MS_UNBINDABLE, operationKernels},
		{"recursive", unix.MS_REC, unix.MS_REC, operationNew},
	} {
		got := decode(request(c.flags))
		if got.flags != c.want || got.operation() != c.op {
			t.Errorf("%s: flags %#x, operation %d, want %#x, %d", c.name, got.flags, got.operation(), c.want, c.op)
		}
	}
}

func request(flags uint64) *emulators.Request {
	return emulators.NewRequest(emulators.Call{Syscall: "mount", Args: [6]uint64{argFlags: flags}})
}

func TestBase(t *testing.T) {
	for fstype, want := range map[string]string{"ext4": "ext4", "fuse.sshfs": "fuse", "fuse.a.b": "fuse", "": "", ".x": "", "fuse.": "fuse"} {
		if got := base(fstype); got != want {
			t.Errorf("%q: %q, want %q", fstype, got, want)
		}
	}
}

// TestData: the kernel copies a page, or as much of it as there is. What has no
// end in a page is refused, not cut.
func TestData(t *testing.T) {
	long := func(n int) []byte { return bytes.Repeat([]byte("x"), n) }
	nul := func(b []byte) []byte { return append(b, 0) }
	for _, c := range []struct {
		name  string
		place func(c *emulatortest.Caller) uint64
		want  string
		errno unix.Errno
	}{
		{"NULL", func(*emulatortest.Caller) uint64 { return 0 }, "", 0},
		{"empty", func(c *emulatortest.Caller) uint64 { return c.String("") }, "", 0},
		{"short", func(c *emulatortest.Caller) uint64 { return c.String("data=ordered") }, "data=ordered", 0},
		{"what follows the NUL", func(c *emulatortest.Caller) uint64 { return c.Bytes([]byte("a\x00b\x00")) }, "a", 0},
		{"at the edge", func(c *emulatortest.Caller) uint64 { return c.StringAtEdge("data=ordered") }, "data=ordered", 0},
		{"a NUL at the edge", func(c *emulatortest.Caller) uint64 { return c.AtEdge([]byte{0}) }, "", 0},
		// The kernel fills with zeros what it cannot copy (copy_mount_options).
		{"cut off by the edge", func(c *emulatortest.Caller) uint64 { return c.AtEdge([]byte("data=ordered")) }, "data=ordered", 0},
		{"a page of it cut off", func(c *emulatortest.Caller) uint64 { return c.AtEdge(long(4095)) }, string(long(4095)), 0},
		{"over the edge of a page", func(c *emulatortest.Caller) uint64 { c.Bytes(long(4090)); return c.String(string(long(40))) }, string(long(40)), 0},
		{"longest", func(c *emulatortest.Caller) uint64 { return c.Bytes(nul(long(4095))) }, string(long(4095)), 0},
		{"longest at the edge", func(c *emulatortest.Caller) uint64 { return c.AtEdge(nul(long(4095))) }, string(long(4095)), 0},
		{"a page without end", func(c *emulatortest.Caller) uint64 { return c.Bytes(nul(long(4096))) }, "", unix.EINVAL},
		{"a page without end at the edge", func(c *emulatortest.Caller) uint64 { return c.AtEdge(long(4096)) }, "", unix.EINVAL},
		{"two pages", func(c *emulatortest.Caller) uint64 { return c.Long(8192) }, "", unix.EINVAL},
		{"not mapped", (*emulatortest.Caller).Unmapped, "", unix.EFAULT},
		{"in the first page", func(*emulatortest.Caller) uint64 { return 8 }, "", unix.EFAULT},
		{"the kernel's", func(*emulatortest.Caller) uint64 { return 0xffffffff81000000 }, "", unix.EFAULT},
		{"the last byte", func(*emulatortest.Caller) uint64 { return ^uint64(0) }, "", unix.EFAULT},
		{"not canonical", func(*emulatortest.Caller) uint64 { return 1 << 60 }, "", unix.EFAULT},
	} {
		t.Run(c.name, func(t *testing.T) {
			caller := emulatortest.NewCaller(t)
			caller.Args[argData] = c.place(caller)
			got, err := data(caller.Request())
			var argument emulators.BadArgument
			switch {
			case c.errno == 0 && (err != nil || got != c.want):
				t.Errorf("%.20q (%d bytes), %v, want %d bytes", got, len(got), err, len(c.want))
			case c.errno != 0 && (!errors.As(err, &argument) || argument.Errno != c.errno || argument.Index != argData || got != ""):
				t.Errorf("%.20q, %v, want %v", got, err, c.errno)
			}
			caller.DieAfter(0)
			if _, err := data(caller.Request()); caller.Args[argData] != 0 && !errors.Is(err, emulators.ErrGone) {
				t.Errorf("dead: %v", err)
			}
		})
	}
}

// TestWord: type and source may be NULL, and too long is wrong.
func TestWord(t *testing.T) {
	c := emulatortest.NewCaller(t)
	for _, w := range []struct {
		name  string
		addr  uint64
		want  string
		errno unix.Errno
	}{
		{"NULL", 0, "", 0}, {"empty", c.String(""), "", 0}, {"short", c.String("ext4"), "ext4", 0}, {"longest", c.String(strings.Repeat("x", 4095)), strings.Repeat("x", 4095), 0},
		{"too long", c.Long(4096), "", unix.EINVAL}, {"not mapped", c.Unmapped(), "", unix.EFAULT}, {"cut off", c.AtEdge([]byte("ext4")), "", unix.EFAULT},
	} {
		c.Args[argType] = w.addr
		got, err := word(c.Request(), argType)
		var argument emulators.BadArgument
		switch {
		case w.errno == 0 && (err != nil || got != w.want):
			t.Errorf("%s: %.20q, %v", w.name, got, err)
		case w.errno != 0 && (!errors.As(err, &argument) || argument.Errno != w.errno || argument.Index != argType):
			t.Errorf("%s: %.20q, %v, want %v", w.name, got, err, w.errno)
		}
	}
}

// FuzzData places bytes at the end of the caller's memory.
func FuzzData(f *testing.F) {
	f.Add([]byte("data=ordered\x00"), true, uint64(0))
	f.Add([]byte("data=ordered"), true, uint64(unix.MS_MGC_VAL|unix.MS_REMOUNT))
	f.Add(bytes.Repeat([]byte("a,"), 2048), false, ^uint64(0))
	f.Add([]byte{}, false, uint64(1<<31))
	f.Fuzz(func(t *testing.T, text []byte, edge bool, flags uint64) {
		if len(text) > 2*maxData {
			return
		}
		caller := emulatortest.NewCaller(t)
		caller.Args[argData], caller.Args[argFlags] = caller.Bytes(text), flags
		if edge {
			caller.Args[argData] = caller.AtEdge(text)
		}
		req := caller.Request()
		c := decode(req)
		if kept := c.flags; kept != flags && kept != flags&0xffff || c.flags>>31 != 0 && c.operation() != operationKernels {
			t.Errorf("flags %#x: %#x, operation %d", flags, c.flags, c.operation())
		}
		if old := flags&unix.MS_MGC_MSK == unix.MS_MGC_VAL; (c.flags != flags) && !old {
			t.Errorf("flags %#x became %#x", flags, c.flags)
		}
		got, err := data(req)
		if err != nil {
			var argument emulators.BadArgument
			if !errors.As(err, &argument) || got != "" {
				t.Errorf("%q, %v", got, err)
			}
			return
		}
		want, _, _ := strings.Cut(string(text), "\x00")
		if got != want || len(got) >= maxData {
			t.Errorf("%q, want %q", got, want)
		}
		_, _ = parseOptions(got)
	})
}
