package tracee

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

// arena is pages of memory, the last but one without access, the last a hole.
func arena(tb testing.TB, pages int) []byte {
	tb.Helper()
	mem, err := unix.Mmap(-1, 0, (pages+2)*pageSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	must(tb, err)
	tb.Cleanup(func() { must(tb, unix.Munmap(mem)) })
	must(tb, unix.Mprotect(mem[pages*pageSize:], unix.PROT_NONE))
	return mem
}

func addr(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }

func TestReadString(t *testing.T) {
	mem := arena(t, 3)
	hole := arena(t, 1)
	must(t, unix.Mprotect(hole, unix.PROT_READ|unix.PROT_WRITE))
	end := 3 * pageSize
	tr := own(t, alive)
	put := func(at int, s string) uint64 {
		copy(mem[at:end], s)
		return addr(mem[at:])
	}
	long := func(n int) string { return strings.Repeat("x", n) }
	for _, c := range []struct {
		name string
		at   int
		text string
		want string
		err  error
	}{
		{"empty", 0, "\x00", "", nil},
		{"short", 10, "/dev/null\x00tail", "/dev/null", nil},
		{"NUL is the last byte", end - 4, "abc\x00", "abc", nil},
		{"over the page edge", pageSize - 3, "abcdef\x00", "abcdef", nil},
		{"511 bytes", 0, long(511) + "\x00", long(511), nil},
		{"512 bytes", 0, long(512) + "\x00", long(512), nil},
		{"513 bytes", 0, long(513) + "\x00", long(513), nil},
		{"longest", 7, long(4095) + "\x00", long(4095), nil},
		{"longest at the edge", end - 4096, long(4095) + "\x00", long(4095), nil},
		{"4096 without end", 7, long(4096) + "\x00", "", ErrTooLong},
		{"4096 at the edge", end - 4096, long(4096), "", ErrTooLong},
		{"runs out of memory", end - 4095, long(4095), "", unix.EFAULT},
		{"one byte, then nothing", end - 1, "x", "", unix.EFAULT},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := tr.ReadString(put(c.at, c.text), PathMax)
			if got != c.want {
				t.Errorf("%d bytes, want %d", len(got), len(c.want))
			}
			wantErr(t, "ReadString", err, c.err)
		})
	}
	for name, a := range map[string]uint64{
		"NULL": 0, "first page": 8, "no access": addr(mem[end:]), "kernel": 0xffffffff81000000,
		"last byte": ^uint64(0), "last page": ^uint64(pageSize - 1), "not canonical": 1 << 60,
	} {
		_, err := tr.ReadString(a, PathMax)
		wantErr(t, name, err, unix.EFAULT)
		wantErr(t, name+" ReadMemory", tr.ReadMemory(a, make([]byte, 4)), unix.EFAULT)
		wantErr(t, name+" WriteMemory", tr.WriteMemory(a, make([]byte, 4)), unix.EFAULT)
	}
}

func TestReadWriteMemory(t *testing.T) {
	mem := arena(t, 2)
	tr := own(t, alive)
	copy(mem[pageSize-2:], "abcd")
	var got [4]byte
	must(t, tr.ReadMemory(addr(mem[pageSize-2:]), got[:]))
	if string(got[:]) != "abcd" {
		t.Errorf("read %q", got)
	}
	must(t, tr.ReadMemory(0, nil))
	must(t, tr.WriteMemory(0, nil))
	must(t, tr.WriteMemory(addr(mem), []byte("hello")))
	if !bytes.HasPrefix(mem, []byte("hello")) {
		t.Errorf("wrote %q", mem[:5])
	}
	edge := addr(mem[2*pageSize-2:])
	wantErr(t, "ReadMemory over the edge", tr.ReadMemory(edge, got[:]), unix.EFAULT)
	wantErr(t, "WriteMemory over the edge", tr.WriteMemory(edge, got[:]), unix.EFAULT)
	must(t, unix.Mprotect(mem[:pageSize], unix.PROT_READ))
	wantErr(t, "WriteMemory of what is read-only", tr.WriteMemory(addr(mem), []byte("x")), unix.EFAULT)
}

// TestDeath has the caller die at each check of each accessor.
func TestDeath(t *testing.T) {
	notifytest.NoLeak(t)
	mem := arena(t, 2)
	copy(mem, strings.Repeat("x", 4095))
	text := addr(mem)
	for name, read := range map[string]func(tr *Tracee) error{
		"ReadString":  func(tr *Tracee) error { _, err := tr.ReadString(text, PathMax); return err },
		"ReadMemory":  func(tr *Tracee) error { return tr.ReadMemory(text, make([]byte, 8)) },
		"bad address": func(tr *Tracee) error { return tr.ReadMemory(0, make([]byte, 8)) },
		"WriteMemory": func(tr *Tracee) error { return tr.WriteMemory(text, []byte{'x'}) },
		"Status":      func(tr *Tracee) error { _, err := tr.Status(); return err },
		"Namespace":   func(tr *Tracee) error { _, err := tr.UserNamespace(); return err },
		"Root":        func(tr *Tracee) error { _, err := tr.Root(); return err },
		"Cwd":         func(tr *Tracee) error { h, err := tr.Dir(unix.AT_FDCWD); h.Close(); return err },
		"File":        func(tr *Tracee) error { h, err := tr.File(0); h.Close(); return err },
		"File EBADF":  func(tr *Tracee) error { h, err := tr.File(9999); h.Close(); return err },
		"Owns": func(tr *Tracee) error {
			who, err := tr.Actor(true)
			if err == nil {
				_, err = who.Owns(&Stat{})
			}
			return err
		},
		"OwnsMount": func(tr *Tracee) error {
			h, err := tr.Root()
			if err != nil {
				return err
			}
			st, err := h.Stat()
			if err == nil {
				_, err = tr.OwnsMount(h, &st, true)
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			tr := own(t, alive)
			for k := range 20 {
				tr.Forget() // a new caller, not one that is recognised
				tr.Reset(tr.TID(), dying(k))
				err := read(tr)
				if k == 0 && !errors.Is(err, ErrGone) {
					t.Errorf("dead from the beginning: %v", err)
				}
				if errors.Is(err, ErrGone) {
					continue
				}
				if want := (name == "bad address" || name == "File EBADF"); (err != nil) != want {
					t.Errorf("died after %d checks: %v", k, err)
				}
				return
			}
			t.Error("never got through")
		})
	}
}
