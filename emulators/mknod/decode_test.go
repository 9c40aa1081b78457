package mknod

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

func request(syscall string, args ...uint64) *emulators.Request {
	c := emulators.Call{Syscall: syscall}
	copy(c.Args[:], args)
	return emulators.NewRequest(c)
}

func TestDecode(t *testing.T) {
	high := uint64(0xdeadbeef) << 32
	for _, c := range []struct {
		name          string
		syscall       string
		args          []uint64
		want          call
		needsTheAgent bool
	}{
		{"mknod null", "mknod", []uint64{1, unix.S_IFCHR | 0o666, 0x103}, call{-1, 0, unix.S_IFCHR | 0o666, unix.S_IFCHR, 0x103, 1, 3}, true},
		{"mknodat null", "mknodat", []uint64{^uint64(0), 1, unix.S_IFCHR | 0o666, 0x103}, call{0, 1, unix.S_IFCHR | 0o666, unix.S_IFCHR, 0x103, 1, 3}, true},
		{"high bits", "mknodat", []uint64{0, 1, high | 0xffff0000 | unix.S_IFBLK | 0o7777, high | 0x700}, call{0, 1, unix.S_IFBLK | 0o7777, unix.S_IFBLK, 0x700, 7, 0}, true},
		{"whiteout", "mknod", []uint64{1, unix.S_IFCHR, 0}, call{-1, 0, unix.S_IFCHR, unix.S_IFCHR, 0, 0, 0}, false},
		{"whiteout with high bits", "mknod", []uint64{1, unix.S_IFCHR, high}, call{-1, 0, unix.S_IFCHR, unix.S_IFCHR, 0, 0, 0}, false},
		{"b 0:0 is no whiteout", "mknod", []uint64{1, unix.S_IFBLK, 0}, call{-1, 0, unix.S_IFBLK, unix.S_IFBLK, 0, 0, 0}, true},
		{"fifo", "mknod", []uint64{1, unix.S_IFIFO | 0o600, 0x103}, call{-1, 0, unix.S_IFIFO | 0o600, unix.S_IFIFO, 0x103, 1, 3}, false},
		{"socket", "mknod", []uint64{1, unix.S_IFSOCK, 0}, call{-1, 0, unix.S_IFSOCK, unix.S_IFSOCK, 0, 0, 0}, false},
		{"regular", "mknod", []uint64{1, unix.S_IFREG, 1}, call{-1, 0, unix.S_IFREG, unix.S_IFREG, 1, 0, 1}, false},
		{"no type", "mknod", []uint64{1, 0o644, 0x103}, call{-1, 0, 0o644, 0, 0x103, 1, 3}, false},
		{"directory", "mknod", []uint64{1, unix.S_IFDIR, 0x103}, call{-1, 0, unix.S_IFDIR, unix.S_IFDIR, 0x103, 1, 3}, false},
		{"no such type", "mknod", []uint64{1, 0xf000, 0x103}, call{-1, 0, 0xf000, 0xf000, 0x103, 1, 3}, false},
	} {
		got := decode(request(c.syscall, c.args...))
		if got != c.want || got.device() != c.needsTheAgent {
			t.Errorf("%s: %+v (%v), want %+v (%v)", c.name, got, got.device(), c.want, c.needsTheAgent)
		}
	}
}

// TestDeviceNumbers: 12 bits of major and 20 of minor, as glibc makes them.
func TestDeviceNumbers(t *testing.T) {
	for _, n := range [][2]uint32{{0, 1}, {1, 3}, {10, 200}, {7, 255}, {7, 256}, {8, 1<<20 - 1}, {4095, 0}, {4095, 1<<20 - 1}, {259, 65537}} {
		c := decode(request("mknod", 0, unix.S_IFCHR, unix.Mkdev(n[0], n[1])))
		if c.major != n[0] || c.minor != n[1] {
			t.Errorf("%d:%d decoded as %d:%d", n[0], n[1], c.major, c.minor)
		}
	}
}

func TestSplit(t *testing.T) {
	for path, want := range map[string][2]string{
		"a": {"", "a"}, "a/": {"", "a/"}, "a//": {"", "a//"}, "/a": {"/", "a"}, "//a": {"//", "a"}, "/a/": {"/", "a/"},
		"a/b": {"a/", "b"}, "a//b": {"a//", "b"}, "a/b/": {"a/", "b/"}, "/a/b//": {"/a/", "b//"}, "/": {"/", "/"}, "//": {"/", "/"}, "///": {"/", "/"},
		".": {"", "."}, "..": {"", ".."}, "./..": {"./", ".."}, "a/.": {"a/", "."}, "../a": {"../", "a"}, "": {"", ""}, "/.": {"/", "."}, "./": {"", "./"},
	} {
		parent, last := split(path)
		if parent != want[0] || last != want[1] {
			t.Errorf("split(%q) = %q, %q, want %q", path, parent, last, want)
		}
	}
}

func FuzzSplit(f *testing.F) {
	for _, s := range []string{"", "/", "//", "a", "a/", "/a//b/", "./.."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, path string) {
		parent, last := split(path)
		if strings.Trim(path, "/") == "" {
			return
		}
		if parent+last != path {
			t.Errorf("split(%q) = %q, %q", path, parent, last)
		}
		if name := strings.TrimRight(last, "/"); name == "" || strings.Contains(name, "/") {
			t.Errorf("split(%q): last is %q", path, last)
		}
		if parent != "" && !strings.HasSuffix(parent, "/") {
			t.Errorf("split(%q): parent is %q", path, parent)
		}
	})
}

func FuzzDecode(f *testing.F) {
	f.Add(true, uint64(0), uint64(unix.S_IFCHR|0o666), uint64(0x103))
	f.Add(false, ^uint64(0), ^uint64(0), ^uint64(0))
	f.Fuzz(func(t *testing.T, at bool, a, b, c uint64) {
		name, args := "mknod", []uint64{a, b, c}
		if at {
			name, args = "mknodat", []uint64{^a, a, b, c}
		}
		got := decode(request(name, args...))
		if got.mode != uint32(uint16(b)) || got.dev != uint32(c) || got.kind != got.mode&unix.S_IFMT {
			t.Errorf("%+v of mode %#x, device %#x", got, b, c)
		}
		if got.major != unix.Major(uint64(got.dev)) || got.minor != unix.Minor(uint64(got.dev)) || got.major > maxMajor || got.minor > maxMinor {
			t.Errorf("%+v: numbers", got)
		}
	})
}
