package mount

import (
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
)

// flag is one of mount(2)'s, and what stands for it in the calls that the agent
// makes: an attribute of the mount, a parameter of the filesystem, or both.
type flag struct {
	name  string // in mount(8) and in a rule's options
	ms    uint64 // MS_*
	attr  uint64 // MOUNT_ATTR_*
	sb    string // the parameter that sets it
	unset string // and the one that clears it
	// harmless flags only take away from what the mount can do, or are the
	// default: every rule allows them.
	harmless  bool
	forceable bool
}

// flags are all that mean anything. MS_MANDLOCK (nothing since Linux 5.15),
// MS_SILENT, MS_POSIXACL and MS_I_VERSION (the filesystem's own business since
// long) are ignored, like bits that have no name, as the kernel does.
var flags = []flag{
	{name: "ro", ms: unix.MS_RDONLY, attr: unix.MOUNT_ATTR_RDONLY, sb: "ro", unset: "rw", harmless: true, forceable: true},
	{name: "nosuid", ms: unix.MS_NOSUID, attr: unix.MOUNT_ATTR_NOSUID, harmless: true, forceable: true},
	{name: "nodev", ms: unix.MS_NODEV, attr: unix.MOUNT_ATTR_NODEV, harmless: true, forceable: true},
	{name: "noexec", ms: unix.MS_NOEXEC, attr: unix.MOUNT_ATTR_NOEXEC, harmless: true, forceable: true},
	{name: "nosymfollow", ms: unix.MS_NOSYMFOLLOW, attr: unix.MOUNT_ATTR_NOSYMFOLLOW, harmless: true}, // the kernel has no lock for it
	{name: "relatime", ms: unix.MS_RELATIME, harmless: true},
	{name: "noatime", ms: unix.MS_NOATIME},
	{name: "strictatime", ms: unix.MS_STRICTATIME},
	{name: "nodiratime", ms: unix.MS_NODIRATIME, attr: unix.MOUNT_ATTR_NODIRATIME},
	{name: "sync", ms: unix.MS_SYNCHRONOUS, sb: "sync", unset: "async"},
	{name: "dirsync", ms: unix.MS_DIRSYNC, sb: "dirsync"},
	{name: "lazytime", ms: unix.MS_LAZYTIME, sb: "lazytime", unset: "nolazytime"},
}

func flagNamed(name string) *flag {
	for i := range flags {
		if flags[i].name == name {
			return &flags[i]
		}
	}
	return nil
}

func forceable() (names []string) {
	for _, f := range flags {
		if f.forceable {
			names = append(names, f.name)
		}
	}
	return names
}

// locked are the attributes that stay whatever the container does; atime's
// cannot be told apart from them.
const atimeFlags = unix.MS_NOATIME | unix.MS_RELATIME | unix.MS_STRICTATIME | unix.MS_NODIRATIME

// atime gives the MOUNT_ATTR_* for the access time flags, which have an order
// of precedence (path_mount of fs/namespace.c).
func atime(ms uint64) uint64 {
	var attr uint64
	switch {
	case ms&unix.MS_STRICTATIME != 0:
		attr = unix.MOUNT_ATTR_STRICTATIME
	case ms&unix.MS_NOATIME != 0:
		attr = unix.MOUNT_ATTR_NOATIME
	}
	if ms&unix.MS_NODIRATIME != 0 {
		attr |= unix.MOUNT_ATTR_NODIRATIME
	}
	return attr
}

// attributes gives the MOUNT_ATTR_* for the others.
func attributes(ms uint64) uint64 {
	var attr uint64
	for _, f := range flags {
		if ms&f.ms != 0 && f.ms&atimeFlags == 0 {
			attr |= f.attr
		}
	}
	return attr
}

// forced gives the MS_* flags that the rule has every mount have.
func (r *rule) forced() uint64 {
	var ms uint64
	if !r.names("suid") {
		ms |= unix.MS_NOSUID
	}
	if !r.names("dev") {
		ms |= unix.MS_NODEV
	}
	for _, name := range r.Force {
		ms |= flagNamed(name).ms
	}
	return ms
}

// allowsFlags returns policy's no to one of the flags.
func (r *rule) allowsFlags(ms uint64) error {
	for _, f := range flags {
		if ms&f.ms != 0 && !r.allowsFlag(&f) {
			return emulators.Denied{Reason: "policy allows no such mount flag", Detail: f.name}
		}
	}
	return nil
}

func (r *rule) allowsFlag(f *flag) bool {
	return f.harmless || r.Options == nil || r.names(f.name)
}

// sbFlag finds the flag that a parameter sets or clears, for those that
// mount(2) takes among the options, too (vfs_parse_sb_flag of
// fs/fs_context.c).
func sbFlag(key string) (f *flag, set bool) {
	for i := range flags {
		switch {
		case key == "":
		case flags[i].sb == key:
			return &flags[i], true
		case flags[i].unset == key:
			return &flags[i], false
		}
	}
	return nil, false
}

// allowsParameter returns policy's no to one of the options.
func (r *rule) allowsParameter(p parameter) error {
	if f, set := sbFlag(p.key); f != nil && !p.valued {
		if set && !r.allowsFlag(f) {
			return emulators.Denied{Reason: "policy allows no such mount flag", Detail: f.name}
		}
		return nil
	}
	if r.Loop && p.key == "loop" && !p.valued {
		return nil // what mount(8) would have done before the call
	}
	if never[p.key] || !r.allowsOption(p) {
		return emulators.Denied{Errno: unix.EINVAL, Reason: "policy allows no such mount option", Detail: p.String()}
	}
	return nil
}
