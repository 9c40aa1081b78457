// Package profile compiles seccomp profiles: it takes the profile a container would have had and makes of it one that stops
// the calls callgate emulates and hands them to the agent, and leaves everything else as it was.
//
// Appending a NOTIFY rule to a stock profile does not do that: libseccomp lets an unconditional ALLOW for a name win over a
// conditional NOTIFY for it, silently and in either order. So each intercepted name is taken out of every other rule first and what the base
// profile did with it is put back as conditional rules for exactly the calls that are not notified.
//
// The result is a pure `linux.seccomp` object of the OCI runtime specification: it can stand in a config.json for runc and crun, in a
// Kubernetes Localhost profile, and in podman's and Docker's --security-opt seccomp=FILE.
//
// The package has no state; its functions may be called concurrently.
package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// DefaultListenerPath is where the agent listens for runtimes.
const DefaultListenerPath = "/run/callgate/agent.sock"

// flagTSync is no longer in the specification's Go package, and still accepted in its JSON.
const flagTSync specs.LinuxSeccompFlag = "SECCOMP_FILTER_FLAG_TSYNC"

// Options says what to make of a base profile. The zero value only resolves it to pure OCI form.
type Options struct {
	// Emulators names those whose calls are to be notified, as in the configuration ("mknod"). See [Emulators] for which there are.
	Emulators []string
	// ListenerPath is the absolute path of the agent's socket; empty means DefaultListenerPath. Unused without emulators.
	ListenerPath string
	// ListenerMetadata is passed to the agent by the runtime, and can select the policy there. Empty keeps the base's.
	ListenerMetadata string
	// Capabilities are held by the container on top of Docker's default set ("CAP_SYS_ADMIN", or "SYS_ADMIN"; "ALL"). They matter for
	// bases in Docker's or podman's format only, whose rules may depend on them.
	Capabilities []string
	// Arch is the architecture to resolve for, as in GOARCH; empty means the running one.
	Arch string
	// WaitKillable asks for SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (Linux 5.19), which keeps a signal from having a waiting call notified
	// twice. Not the default because runc before 1.5, or with libseccomp before 2.6, refuses to start a container with it. crun takes it since 1.6.
	WaitKillable bool
}

// Result is a compiled profile.
type Result struct {
	// Seccomp is in pure OCI form.
	Seccomp *specs.LinuxSeccomp
	// Warnings are sentences for the operator on where the result differs from the base in more than was asked for.
	Warnings []string
}

// JSON gives the profile indented and with a newline at the end. The same input gives the same bytes.
func (r *Result) JSON() ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(r.Seccomp); err != nil {
		return nil, fmt.Errorf("encode profile: %w", err)
	}
	return buf.Bytes(), nil
}

// Compile makes a profile out of a base: an OCI `linux.seccomp` object, a whole OCI config.json that has one, or a profile
// in Docker's or podman's format. A nil base means the built-in one, see [Default].
//
// An error's text is one line and says where in the base it is, by line and column or by field. Compiling a result once more with the same
// emulators changes nothing.
func Compile(base []byte, opts Options) (*Result, error) {
	if base == nil {
		base = Default()
	}
	target, err := newTarget(opts)
	if err != nil {
		return nil, err
	}
	doc, err := parse(base)
	if err != nil {
		return nil, fmt.Errorf("base profile: %w", err)
	}
	seccomp, err := doc.resolve(target)
	if err != nil {
		return nil, fmt.Errorf("base profile: %w", err)
	}
	if err := checkBase(seccomp); err != nil {
		return nil, fmt.Errorf("base profile: %w", err)
	}
	c := compiler{out: seccomp}
	if err := c.intercept(opts.Emulators); err != nil {
		return nil, err
	}
	if err := c.listener(opts); err != nil {
		return nil, err
	}
	c.flags(opts)
	return &Result{Seccomp: seccomp, Warnings: c.warnings}, nil
}

// checkBase refuses what runc refuses too: it writes the listener's number with write(2) after the filter is active, before anybody can answer.
func checkBase(s *specs.LinuxSeccomp) error {
	if s.DefaultAction == specs.ActNotify {
		return fmt.Errorf("defaultAction: SCMP_ACT_NOTIFY cannot be the default action")
	}
	for i, rule := range s.Syscalls {
		if rule.Action == specs.ActNotify && slices.Contains(rule.Names, "write") {
			return fmt.Errorf("rule %d: SCMP_ACT_NOTIFY on write would keep the container from starting", i)
		}
	}
	return nil
}

type compiler struct {
	out      *specs.LinuxSeccomp
	warnings []string
}

func (c *compiler) warn(format string, args ...any) {
	c.warnings = append(c.warnings, fmt.Sprintf(format, args...))
}

func (c *compiler) notifies() bool {
	return slices.ContainsFunc(c.out.Syscalls, func(r specs.LinuxSyscall) bool { return r.Action == specs.ActNotify })
}

func (c *compiler) listener(opts Options) error {
	if len(opts.Emulators) == 0 {
		return nil // crun would connect to a listenerPath although nothing is ever notified
	}
	want := opts.ListenerPath
	if want == "" {
		want = DefaultListenerPath
	}
	if !path.IsAbs(want) {
		return fmt.Errorf("listener path %q is not absolute", want)
	}
	// A sockaddr_un holds 108 bytes with the terminating NUL, unix(7).
	if len(want) > len(unix.RawSockaddrUnix{}.Path)-1 {
		return fmt.Errorf("listener path %q is longer than a socket's name can be", want)
	}
	if have := c.out.ListenerPath; have != "" && have != want {
		return fmt.Errorf("base profile: listenerPath is already %q, a filter has one listener and cannot also have %q", have, want)
	}
	c.out.ListenerPath = want
	if opts.ListenerMetadata != "" {
		c.out.ListenerMetadata = opts.ListenerMetadata
	}
	return nil
}

func (c *compiler) flags(opts Options) {
	if c.notifies() && slices.Contains(c.out.Flags, flagTSync) {
		c.out.Flags = slices.DeleteFunc(c.out.Flags, func(f specs.LinuxSeccompFlag) bool { return f == flagTSync })
		c.warn("%s is dropped: the kernel refuses it together with a listener", flagTSync)
	}
	const wait = specs.LinuxSeccompFlagWaitKillableRecv
	// The kernel refuses the flag without a listener.
	if opts.WaitKillable && c.notifies() && !slices.Contains(c.out.Flags, wait) {
		c.out.Flags = append(c.out.Flags, wait)
	}
}
