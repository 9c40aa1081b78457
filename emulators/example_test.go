package emulators_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/emulators/emulatortest"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/tracee"
)

// hostnameKind lets a container without CAP_SYS_ADMIN choose its hostname from
// a list. perform is setHostname, but for tests.
func hostnameKind(perform func(ns tracee.Handle, name string) error) emulators.Kind {
	return emulators.Kind{
		Name:     "hostname",
		Syscalls: []string{"sethostname"},
		New: func(p emulators.Policy) (emulators.Emulator, error) {
			e := &hostname{perform: perform}
			if err := p.Decode(&e.policy); err != nil {
				return nil, err
			}
			return e, nil
		},
	}
}

type hostname struct {
	policy struct {
		Allow []string `yaml:"allow"`
	}
	perform func(ns tracee.Handle, name string) error
}

// Emulate is decode, check, perform: sethostname(const char *name, int len).
func (e *hostname) Emulate(_ context.Context, req *emulators.Request) (emulators.Response, error) {
	// Decode. The length is the caller's to choose, so it is bounded before it
	// becomes a buffer; the name has no NUL.
	const maxName = 64 // __NEW_UTS_LEN
	n := req.Int(1)
	if n < 0 || n > maxName {
		return emulators.Response{}, emulators.BadArgument{Index: 1, Errno: unix.EINVAL}
	}
	buf := make([]byte, n)
	if err := req.Read(0, buf); err != nil {
		return emulators.Response{}, err
	}
	name := string(buf) // the one copy: nobody reads the caller's again

	// Check.
	if !slices.Contains(e.policy.Allow, name) {
		return emulators.Response{}, emulators.Denied{Reason: "policy allows no such hostname"}
	}

	// Perform, on what is held by descriptor, and while the caller waits.
	ns, err := req.Caller().Namespace(pidfd.NSUTS)
	if err != nil {
		return emulators.Response{}, err
	}
	defer ns.Close()
	if err := req.Caller().StillWaiting(); err != nil {
		return emulators.Response{}, err
	}
	if err := e.perform(ns, name); err != nil {
		return emulators.Response{}, fmt.Errorf("set hostname: %w", err)
	}
	return emulators.Return(0), nil // to set it twice is to set it once: no After
}

// setHostname works in the UTS namespace ns, on a thread that ends afterwards.
func setHostname(ns tracee.Handle, name string) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked
		err := os.NewSyscallError("setns", unix.Setns(ns.FD(), unix.CLONE_NEWUTS))
		if err == nil {
			err = os.NewSyscallError("sethostname", unix.Sethostname([]byte(name)))
		}
		done <- err
	}()
	return <-done
}

func Example() {
	kind := hostnameKind(setHostname)
	_, err := kind.New(emulatortest.Policy("allow: [web, db]"))
	fmt.Println(kind.Name, kind.Syscalls, err)
	_, err = kind.New(emulatortest.Policy("alow: [web, db]"))
	fmt.Println(strings.Contains(err.Error(), "alow"))
	// Output:
	// hostname [sethostname] <nil>
	// true
}

// TestExample is all that a new kind's test needs to begin with.
func TestExample(t *testing.T) {
	var set sync.Map // by name
	names := []string{"web", "web1", "web2", "web3"}
	kind := hostnameKind(func(_ tracee.Handle, name string) error { set.Store(name, true); return nil })
	emulatortest.Conform(t, kind, emulatortest.Options{
		Policy:      "allow: [web, web1, web2, web3]",
		BadPolicies: []emulatortest.Policy{"allow: {web: 1}"},
		Calls: []emulatortest.Call{{
			Syscall: "sethostname",
			Args: func(c *emulatortest.Caller, n int) [6]uint64 {
				return [6]uint64{c.Bytes([]byte(names[n])), uint64(len(names[n]))}
			},
			Pointers: []emulatortest.Pointer{{Index: 0, Size: len("web")}},
		}},
		Done: func(n int) bool { _, ok := set.Load(names[n]); return ok },
		Undo: func(n int) { set.Delete(names[n]) },
		// Whoever sets it again overwrites it: nothing to undo.
		Idempotent: true,
	})
}
