// Package emulatortest tests emulators: a caller made of memory, a policy from
// text, and the suite that every kind must pass.
package emulatortest

import (
	"bytes"
	"os"
	"sync"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// ArenaSize is how much memory a [Caller] has.
const ArenaSize = 8 * page

const page = 4096

// Caller is a stopped caller made of memory: this process plays it, and what
// it points to is in an arena that ends at an unmapped page.
type Caller struct {
	// Syscall and Args are the call that [Caller.Request] makes.
	Syscall string
	Args    [6]uint64
	// Container is the request's; that of [NewCaller] is in this process's user
	// namespace.
	Container *emulators.Container
	Patience  emulators.Patience
	// Thread is what acts as the caller, for tests that need root. Nil where
	// there is none: see [OnThread].
	Thread *tracee.Thread

	tb     testing.TB
	proc   *tracee.Proc
	tracee *tracee.Tracee
	host   pidfd.NSID
	mem    []byte
	next   int

	mu     sync.Mutex // guards the rest
	checks int
	dies   int // after so many checks; negative: never
}

// NewCaller makes a caller, which goes when the test ends.
func NewCaller(tb testing.TB) *Caller {
	tb.Helper()
	c := newCaller(tb)
	tb.Cleanup(c.Close)
	return c
}

func newCaller(tb testing.TB) *Caller {
	tb.Helper()
	c := &Caller{tb: tb, dies: -1, Patience: emulators.Patient}
	var err error
	if c.proc, err = tracee.OpenProc(); err != nil {
		tb.Fatal(err)
	}
	if c.mem, err = unix.Mmap(-1, 0, ArenaSize+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS); err != nil {
		tb.Fatal("mmap:", err)
	}
	if err := unix.Mprotect(c.mem[ArenaSize:], unix.PROT_NONE); err != nil {
		tb.Fatal("mprotect:", err)
	}
	c.tracee = tracee.New(c.proc)
	c.tracee.Reset(os.Getpid(), c.waiting)
	ns, err := c.tracee.UserNamespace()
	if err != nil {
		tb.Fatal(err)
	}
	c.host = ns
	c.Container = &emulators.Container{ID: "test", Profile: "test", UserNamespace: ns}
	return c
}

// Close gives back what the caller holds.
func (c *Caller) Close() {
	c.tracee.Reset(0, nil)
	c.tracee.Forget()
	c.proc.Close()
	_ = unix.Munmap(c.mem)
}

func (c *Caller) waiting() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks++
	if c.dies >= 0 && c.checks > c.dies {
		return emulators.ErrGone
	}
	return nil
}

// DieAfter has the caller die after k more checks that it still waits.
func (c *Caller) DieAfter(k int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks, c.dies = 0, k
}

// Live brings it back.
func (c *Caller) Live() { c.DieAfter(-1) }

// Request is the call as an emulator sees it. One at a time.
func (c *Caller) Request() *emulators.Request {
	c.tracee.Reset(os.Getpid(), c.waiting)
	return emulators.NewRequest(emulators.Call{
		Syscall: c.Syscall, Args: c.Args, Caller: c.tracee, Thread: c.Thread, Container: c.Container, Patience: c.Patience, Host: c.host,
	})
}

// String places a string with its NUL and returns its address.
func (c *Caller) String(s string) uint64 { return c.Bytes(append([]byte(s), 0)) }

// Bytes places p and returns its address.
func (c *Caller) Bytes(p []byte) uint64 {
	c.tb.Helper()
	const align = 16
	if c.next+len(p) > ArenaSize {
		c.tb.Fatalf("caller has no room for %d bytes", len(p))
	}
	at := c.next
	copy(c.mem[at:], p)
	c.next += (len(p) + align - 1) &^ (align - 1)
	return c.address(at)
}

// AtEdge places p so that its last byte is the last before the unmapped page.
func (c *Caller) AtEdge(p []byte) uint64 {
	at := ArenaSize - len(p)
	copy(c.mem[at:ArenaSize], p)
	return c.address(at)
}

// StringAtEdge is AtEdge of a string with its NUL.
func (c *Caller) StringAtEdge(s string) uint64 { return c.AtEdge(append([]byte(s), 0)) }

// Long places n bytes without an end in sight, followed by a NUL.
func (c *Caller) Long(n int) uint64 {
	p := make([]byte, n+1)
	for i := range n {
		p[i] = 'x'
	}
	return c.Bytes(p)
}

// Unmapped is an address where nothing is.
func (c *Caller) Unmapped() uint64 { return c.address(ArenaSize) }

// Clear forgets what was placed.
func (c *Caller) Clear() {
	clear(c.mem[:ArenaSize])
	c.next = 0
}

// at is what an address in the arena holds: n bytes, or for n = 0 a string with
// its NUL.
func (c *Caller) at(addr uint64, n int) []byte {
	c.tb.Helper()
	from := addr - c.address(0)
	if from >= ArenaSize {
		c.tb.Fatalf("argument %#x is not in the caller's arena", addr)
	}
	rest := c.mem[from:ArenaSize]
	if n == 0 {
		n = bytes.IndexByte(rest, 0) + 1
	}
	return bytes.Clone(rest[:n])
}

// died says whether somebody was told that the caller is gone.
func (c *Caller) died() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dies >= 0 && c.checks > c.dies
}

func (c *Caller) address(at int) uint64 {
	return uint64(uintptr(unsafe.Pointer(unsafe.SliceData(c.mem)))) + uint64(at)
}
