package emulatortest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

// notes is what the emulator of these tests works on: the call is
// note(path, struct of 8 bytes, n) and its effect an entry.
type notes struct {
	mu   sync.Mutex // guards made
	made map[int]string
}

func (s *notes) has(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.made[n]
	return ok
}

func (s *notes) set(n int, path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made[n] = path
}

func (s *notes) drop(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.made, n)
}

// noter is a good emulator, unless it has a defect.
type noter struct {
	notes  *notes
	defect string
	busy   *atomic.Int32
}

func (e noter) Emulate(_ context.Context, req *emulators.Request) (emulators.Response, error) {
	n := int(req.Int(2))
	switch e.defect {
	case "acts before it looks":
		e.notes.set(n, "")
	case "leaks":
		_, _ = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	case "one at a time":
		defer e.busy.Add(-1)
		if e.busy.Add(1) > 1 {
			return emulators.Response{}, errors.New("busy")
		}
		time.Sleep(time.Millisecond)
	case "acts, then blocks":
		if req.Patience() == emulators.Hurry {
			e.notes.set(n, "")
			return emulators.Response{}, emulators.ErrBlocks
		}
	}
	path, err := e.path(req)
	var arg [8]byte
	if err == nil && e.defect != "forgets the struct" {
		err = req.Read(1, arg[:])
	}
	if err == nil {
		err = req.Caller().StillWaiting()
	}
	switch e.defect {
	case "allows on error":
		err = nil
	case "answers the dead":
		if errors.Is(err, emulators.ErrGone) {
			return emulators.Fail(unix.EIO), nil
		}
	case "wrong errno":
		if errors.Is(err, unix.ENAMETOOLONG) {
			err = emulators.BadArgument{Index: 0, Errno: unix.EINVAL}
		}
	case "wrong index":
		var bad emulators.BadArgument
		if errors.As(err, &bad) {
			bad.Index += 3
			err = bad
		}
	case "panics":
		if err != nil {
			panic("no path")
		}
	case "refuses":
		return emulators.Response{}, emulators.Denied{Reason: "because"}
	}
	if err != nil {
		return emulators.Response{}, fmt.Errorf("note: %w", err)
	}
	if e.defect == "does nothing" {
		return emulators.Return(0), nil
	}
	e.notes.set(n, path)
	return emulators.Return(0).After(func(delivered bool) {
		if !delivered && e.defect != "does not undo" {
			e.notes.drop(n)
		}
	}), nil
}

func (e noter) path(req *emulators.Request) (string, error) {
	if e.defect == "reads over the edge" {
		var p [64]byte
		err := req.Read(0, p[:])
		return string(p[:]), err
	}
	return req.Path(0)
}

// noteKind is the kind and its suite.
func noteKind(defect string) (emulators.Kind, Options) {
	s := &notes{made: make(map[int]string)}
	kind := emulators.Kind{
		Name:     "note",
		Syscalls: []string{"note"},
		New: func(p emulators.Policy) (emulators.Emulator, error) {
			var policy struct {
				Allow []string `yaml:"allow"`
			}
			err := p.Decode(&policy)
			if defect == "takes any policy" {
				err = nil
			}
			return noter{s, defect, new(atomic.Int32)}, err
		},
	}
	if defect == "claims more" {
		kind.Syscalls = append(kind.Syscalls, "noteat")
	}
	return kind, Options{
		Policy:      "allow: [a, b]",
		BadPolicies: []Policy{"allow: 1", "allow: {a: b}"},
		Calls: []Call{{
			Syscall: "note",
			Args: func(c *Caller, n int) [6]uint64 {
				return [6]uint64{c.String("/a/path"), c.Bytes(make([]byte, 8)), uint64(n)}
			},
			Pointers: []Pointer{{Index: 0}, {Index: 1, Size: 8}},
		}},
		Done: s.has,
		Undo: s.drop,
	}
}

func TestConformGood(t *testing.T) {
	kind, o := noteKind("")
	Conform(t, kind, o)
}

// recorder is a test whose failures are looked at.
type recorder struct {
	testing.TB
	mu       sync.Mutex // guards failures
	failures []string
}

func (r *recorder) Helper() {}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

// TestConformCatches: each defect is found, and by the check that is for it.
func TestConformCatches(t *testing.T) {
	for defect, by := range map[string]string{
		"claims more":          "kind",
		"takes any policy":     "policy",
		"does nothing":         "good call",
		"refuses":              "good call",
		"leaks":                "good call",
		"acts before it looks": "pointers",
		"forgets the struct":   "pointers",
		"allows on error":      "pointers",
		"wrong errno":          "pointers",
		"wrong index":          "pointers",
		"panics":               "pointers",
		"reads over the edge":  "pointers",
		"answers the dead":     "death",
		"does not undo":        "not delivered",
		"acts, then blocks":    "hurry",
		"one at a time":        "concurrent",
	} {
		t.Run(defect, func(t *testing.T) {
			kind, o := noteKind(defect)
			for _, c := range checks() {
				r := &recorder{TB: t}
				before := descriptors()
				runCheck(r, c, kind, o)
				closeLeaked(before)
				if c.name == by && len(r.failures) == 0 {
					t.Errorf("%s did not notice", by)
				}
				if c.name == by && len(r.failures) > 0 {
					t.Log(strings.SplitN(r.failures[0], "\n", 2)[0])
				}
			}
		})
	}
}

func closeLeaked(before map[string]string) {
	for fd := range leaked(before) {
		var n int
		if _, err := fmt.Sscan(fd, &n); err == nil {
			_ = unix.Close(n)
		}
	}
}

func TestPolicy(t *testing.T) {
	var into struct {
		Allow []int `yaml:"allow"`
	}
	for _, p := range []Policy{"", "# nothing\n", "allow: [1, 2]"} {
		if err := p.Decode(&into); err != nil {
			t.Errorf("%q: %v", p, err)
		}
	}
	if len(into.Allow) != 2 {
		t.Errorf("decoded %v", into)
	}
	for _, p := range []Policy{"deny: [1]", "allow: [x]", "allow: [1]\nallow: [2]", "text", "\t"} {
		if err := p.Decode(&into); err == nil {
			t.Errorf("%q: no error", p)
		}
	}
}

func TestCaller(t *testing.T) {
	c := NewCaller(t)
	c.Syscall = "note"
	c.Args = [6]uint64{c.String("first"), c.StringAtEdge("last"), c.Unmapped(), c.Long(5000), 1<<32 | 7}
	req := c.Request()
	for i, want := range []string{"first", "last"} {
		if got, err := req.Path(i); err != nil || got != want {
			t.Errorf("Path(%d): %q, %v", i, got, err)
		}
	}
	for i, want := range map[int]emulators.BadArgument{2: {Index: 2, Errno: unix.EFAULT}, 3: {Index: 3, Errno: unix.ENAMETOOLONG}} {
		if _, err := req.Path(i); err != want {
			t.Errorf("Path(%d): %v, want %v", i, err, want)
		}
	}
	if _, ok, err := req.OptionalPath(5); ok || err != nil {
		t.Errorf("OptionalPath of NULL: %v, %v", ok, err)
	}
	if req.Int(4) != 7 || req.Uint32(4) != 7 || req.Uint64(4) != 1<<32|7 || req.PID() != os.Getpid() {
		t.Error("registers")
	}
	var bad emulators.BadArgument
	if h, err := req.File(5); err != nil {
		t.Errorf("File(0): %v", err)
	} else {
		h.Close()
	}
	c.Args[5] = 99999
	if _, err := c.Request().Dir(5); !errors.As(err, &bad) || bad.Errno != unix.EBADF {
		t.Errorf("Dir: %v", err)
	}
	c.DieAfter(0)
	if _, err := c.Request().Path(0); !errors.Is(err, emulators.ErrGone) {
		t.Errorf("dead: %v", err)
	}
	c.Live()
	if _, err := c.Request().Path(0); err != nil {
		t.Errorf("alive again: %v", err)
	}
}
