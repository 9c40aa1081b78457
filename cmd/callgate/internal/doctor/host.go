package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
)

func hostProbes() []probe {
	probes := []probe{
		{id: "libseccomp", title: "libseccomp", try: func(context.Context) finding { return yes(filter.Version()) }},
	}
	probes = append(probes, runtimeProbes()...)
	return append(probes,
		probe{
			id: "cgroup", title: "cgroup v2 alone", try: cgroups,
			cost: "crun runs no containers (runc, podman on runc do)",
		},
		probe{
			id: "nofile", title: "descriptors (RLIMIT_NOFILE)", try: descriptors,
			cost: "raise it (LimitNOFILE= of systemd) if there are to be more containers",
		},
		probe{
			id: "sysctl.protected_symlinks", title: "fs.protected_symlinks on", try: sysctl("fs/protected_symlinks", "1"),
			cost: "a directory that the caller may search only by a capability is looked up as if it were on: EACCES",
		},
		probe{
			id: "sysctl.ptrace_scope", title: "kernel.yama.ptrace_scope below 3", try: ptraceScope, required: true,
			cost: "callers' memory cannot be read, by nobody, until the host is started anew",
		},
		probe{
			id: "lsm.selinux", title: "SELinux not enforcing", try: selinux,
			cost: "not tried with it: nodes get the label of the agent's making, and policy may refuse",
		},
		probe{
			id: "lsm.apparmor", title: "AppArmor does not confine this process", try: apparmor,
			cost: "the agent may do no more than this profile says",
		},
	)
}

func cgroups(context.Context) finding {
	const at = "/sys/fs/cgroup"
	var fs unix.Statfs_t
	if err := unix.Statfs(at, &fs); err != nil {
		return unsure(&os.PathError{Op: "statfs", Path: at, Err: err})
	}
	if fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return yes("")
	}
	if err := unix.Statfs(at+"/unified", &fs); err == nil && fs.Type == unix.CGROUP2_SUPER_MAGIC {
		return no("hybrid: v1 with v2 in " + at + "/unified")
	}
	return finding{state: Missing, found: "v1", cost: "none known, but nobody tries it any more"}
}

// enough is the default of limits.listenersPerUid.
const enough = 16384

func descriptors(context.Context) finding {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return unsure(os.NewSyscallError("getrlimit", err))
	}
	// The Go runtime raises the soft limit to the hard one.
	const own = 128 // sockets, reactors, workers: each call pins a few
	fit := limit.Max - min(limit.Max, own)
	found := fmt.Sprintf("%d: some %d listeners", limit.Max, fit)
	if fit < enough {
		return no(found)
	}
	return yes(found)
}

func sysctl(name, want string) func(context.Context) finding {
	return func(context.Context) finding {
		value, err := read("/proc/sys/" + name)
		switch {
		case err != nil:
			return unsure(err)
		case value != want:
			return no(value)
		}
		return yes("")
	}
}

func ptraceScope(context.Context) finding {
	value, err := read("/proc/sys/kernel/yama/ptrace_scope")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return yes("no Yama")
	case err != nil:
		return unsure(err)
	case value == "3":
		return no(value)
	}
	return yes(value)
}

func selinux(context.Context) finding {
	value, err := read("/sys/fs/selinux/enforce")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return without("selinux")
	case err != nil:
		return unsure(err)
	case value == "1":
		return no("enforcing")
	}
	return yes("permissive")
}

func apparmor(context.Context) finding {
	value, err := read("/sys/module/apparmor/parameters/enabled")
	if errors.Is(err, os.ErrNotExist) || err == nil && value != "Y" {
		return yes("no AppArmor")
	}
	if err != nil {
		return unsure(err)
	}
	label, err := read("/proc/self/attr/apparmor/current") // Linux 4.13
	switch {
	case err != nil:
		return unsure(err)
	case label != "unconfined":
		return no(label)
	}
	return yes("unconfined")
}

// without believes that there is no security module of a name only where the
// kernel's list is to be seen, or /sys/fs is and has no place for it.
func without(name string) finding {
	list, err := read("/sys/kernel/security/lsm")
	switch {
	case err == nil && slices.Contains(strings.Split(list, ","), name):
		return unsure(fmt.Errorf("%s is active, but its state is not to be seen", name))
	case err == nil:
		return yes("not there")
	}
	if _, err := os.Stat("/sys/fs/" + name); errors.Is(err, os.ErrNotExist) {
		if _, err := os.Stat("/sys/fs/cgroup"); err == nil {
			return yes("not there")
		}
	}
	return unsure(err)
}

func read(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.TrimSpace(strings.TrimRight(string(text), "\x00")), err
}
