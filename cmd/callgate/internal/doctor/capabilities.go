package doctor

import (
	"context"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/pkg/tracee"
)

// capability is one that the agent uses. CAP_SYS_RESOURCE is none of them.
type capability struct {
	bit      int
	name     string
	cost     string
	required bool
}

func capabilities() []capability {
	return []capability{
		{bit: unix.CAP_SYS_PTRACE, name: "CAP_SYS_PTRACE", required: true, cost: "callers' memory, directories and descriptors cannot be reached"},
		{bit: unix.CAP_SETUID, name: "CAP_SETUID", required: true, cost: "nothing can be done in a caller's name"},
		{bit: unix.CAP_SETGID, name: "CAP_SETGID", required: true, cost: "nothing can be done in a caller's name"},
		{bit: unix.CAP_MKNOD, name: "CAP_MKNOD", required: true, cost: "mknod makes no devices"},
		{bit: unix.CAP_SYS_ADMIN, name: "CAP_SYS_ADMIN", cost: "mount does not work; no device opens on filesystems of a container's own user namespace; callgate run does not work"},
		{bit: unix.CAP_SYS_CHROOT, name: "CAP_SYS_CHROOT", cost: "paths with .. or absolute links in them fail, as does what CAP_SYS_ADMIN is for"},
		{bit: unix.CAP_DAC_OVERRIDE, name: "CAP_DAC_OVERRIDE", cost: "callers that may override file permissions cannot"},
		{bit: unix.CAP_DAC_READ_SEARCH, name: "CAP_DAC_READ_SEARCH", cost: "callers that may search any directory cannot, unless they have CAP_DAC_OVERRIDE"},
		{bit: unix.CAP_CHOWN, name: "CAP_CHOWN", cost: "no device opens on filesystems of a container's own user namespace"},
		{bit: unix.CAP_FOWNER, name: "CAP_FOWNER", cost: "no device opens on filesystems of a container's own user namespace"},
		{bit: unix.CAP_FSETID, name: "CAP_FSETID", cost: "new nodes lose their setgid bit where the caller could keep it"},
		{bit: unix.CAP_KILL, name: "CAP_KILL", cost: "mount's FUSE programs cannot be ended before their mounts are"},
		{bit: unix.CAP_SYSLOG, name: "CAP_SYSLOG", cost: "with kernel.dmesg_restrict the kernel's words about a filesystem are not in callgate's log"},
		{bit: unix.CAP_SETPCAP, name: "CAP_SETPCAP", cost: "nothing: there is another way for what it is used for"},
	}
}

func capabilityProbes() []probe {
	probes := []probe{{
		id: "userns", title: "initial user namespace", required: true, try: initialUserns,
		cost: "capabilities are worth nothing where mknod asks for them",
	}}
	for _, c := range capabilities() {
		probes = append(probes, probe{
			id: "capability." + strings.ToLower(strings.TrimPrefix(c.name, "CAP_")), title: c.name,
			cost: c.cost, required: c.required,
			try: func(context.Context) finding { return holds(c.bit) },
		})
	}
	return probes
}

func initialUserns(context.Context) finding {
	const initial = 0xEFFFFFFD // PROC_USER_INIT_INO, include/linux/proc_ns.h
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/ns/user", &st); err != nil {
		return unsure(&os.PathError{Op: "stat", Path: "/proc/self/ns/user", Err: err})
	}
	if st.Ino != initial {
		return no("in another")
	}
	return yes("")
}

func holds(bit int) finding {
	effective, err := effective()
	switch {
	case err != nil:
		return unsure(err)
	case !effective.Has(bit):
		return no("")
	}
	return yes("")
}

// effective are this process's capabilities, in whichever user namespace it is:
// what they are worth the other probes find out.
func effective() (tracee.Capabilities, error) {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return 0, os.NewSyscallError("capget", err)
	}
	return tracee.Capabilities(data[0].Effective) | tracee.Capabilities(data[1].Effective)<<32, nil
}
