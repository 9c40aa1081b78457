package mount

import (
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// policy is the kind's part of a profile.
type policy struct {
	// Allow lists what a container may mount.
	Allow []rule `yaml:"allow"`
	// MaxLoops bounds the loop devices that a container has at a time.
	MaxLoops int `yaml:"maxLoops"`
}

// globs says whether a source is a glob: whether names matter.
func (p *policy) globs() bool {
	return slices.ContainsFunc(p.Allow, func(r rule) bool {
		return slices.ContainsFunc(r.Source, func(s source) bool { return !s.device })
	})
}

// defaultMaxLoops is MaxLoops if none is given.
const defaultMaxLoops = 16

func (p *policy) maxLoops() int {
	if p.MaxLoops == 0 {
		return defaultMaxLoops
	}
	return p.MaxLoops
}

// Validate checks what no single field can know.
func (p *policy) Validate() error {
	if p.MaxLoops < 0 {
		return fmt.Errorf("maxLoops: %d is negative", p.MaxLoops)
	}
	return nil
}

// rule allows one type of filesystem from some sources.
type rule struct {
	Type string `yaml:"type"`
	// Source lists device numbers ("b 7:*") and globs of the path that the
	// container sees; for a network filesystem globs of the source itself.
	Source []source `yaml:"source"`
	// Options lists options and flags by their names in mount(8). Absent: no
	// options of the filesystem's own, and all flags but suid and dev.
	Options *[]option `yaml:"options"`
	// Force lists flags that every such mount has.
	Force []string `yaml:"force"`
	// Shift has the filesystem's ids shown as the container's; absent: true.
	Shift *bool `yaml:"shift"`
	// Loop allows images: regular files, which get a loop device.
	Loop bool `yaml:"loop"`
	// DirectIO has the loop device bypass the page cache of the image's
	// filesystem, where that can.
	DirectIO bool `yaml:"directIO"`
	// Via is who reads the filesystem.
	Via via `yaml:"via"`
	// Program is the host's FUSE program for via: fuse, with arguments that come
	// before those that all of them get.
	Program string `yaml:"program"`
}

// via is who reads the filesystem: the kernel, or a FUSE program.
type via int

const (
	viaKernel via = iota
	viaFUSE
)

// UnmarshalText parses "kernel" or "fuse".
func (v *via) UnmarshalText(text []byte) error {
	switch string(text) {
	case "kernel":
		*v = viaKernel
	case "fuse":
		*v = viaFUSE
	default:
		return errors.New(`want "kernel" or "fuse"`)
	}
	return nil
}

// Validate checks what no single field can know.
func (r *rule) Validate() error {
	switch {
	case r.Type == "":
		return errors.New("type: missing, want a filesystem's name, such as ext4")
	case strings.ContainsAny(r.Type, " \t\n,/"):
		return fmt.Errorf("type: %q is no filesystem's name", r.Type)
	case kernelsOwn[base(r.Type)]:
		return fmt.Errorf("type: a user namespace mounts %s by itself, it needs no rule (bind, remount, move and propagation neither)", r.Type)
	case r.Via == viaFUSE && strings.TrimSpace(r.Program) == "":
		return errors.New("program: missing, via: fuse wants the host's FUSE program, such as fuse2fs")
	case r.Via == viaKernel && r.Program != "":
		return errors.New("program: is for via: fuse")
	case r.Via == viaFUSE && r.DirectIO:
		return errors.New("directIO: is for loop devices, of which via: fuse makes none")
	case len(r.Source) == 0 && !r.Loop:
		return errors.New(`source: missing, want device numbers ("b 7:*") or globs of paths ("/dev/vg/*")`)
	}
	for _, name := range r.Force {
		if f := flagNamed(name); f == nil || !f.forceable {
			return fmt.Errorf("force: %q: want some of %s", name, strings.Join(forceable(), ", "))
		}
	}
	return nil
}

func (r *rule) shifts() bool { return r.Shift == nil || *r.Shift }

// ofType lists the rules for a filesystem type.
func (p *policy) ofType(fstype string) []*rule {
	var rules []*rule
	for i := range p.Allow {
		if p.Allow[i].Type == fstype {
			rules = append(rules, &p.Allow[i])
		}
	}
	return rules
}

// kernelsOwn are the filesystems that the kernel lets a user namespace mount
// (FS_USERNS_MOUNT; Linux 6.18), and that are therefore its own business.
var kernelsOwn = map[string]bool{
	"tmpfs": true, "ramfs": true, "proc": true, "sysfs": true, "devpts": true, "mqueue": true, "cgroup": true, "cgroup2": true,
	"overlay": true, "fuse": true, "fuseblk": true, "binfmt_misc": true, "bpf": true,
}

// source is a device, by numbers, or a glob.
type source struct {
	device       bool
	major, minor span
	glob         string
}

type span struct{ first, last uint32 }

func (s span) holds(n uint32) bool { return s.first <= n && n <= s.last }

// UnmarshalText parses "b MAJOR:MINOR", each number itself, a range or *, or
// else a glob.
func (s *source) UnmarshalText(text []byte) error {
	const want = `want block device numbers such as "b 7:*" or "b 8:0-15", or a glob of absolute paths such as "/dev/vg/*"`
	numbers, device := strings.CutPrefix(string(text), "b ")
	if !device {
		if strings.HasPrefix(string(text), "c ") {
			return fmt.Errorf("source %q: a character device holds no filesystem; %s", text, want)
		}
		if _, err := path.Match(string(text), "/"); err != nil || len(text) == 0 {
			return fmt.Errorf("source %q: %s", text, want)
		}
		s.glob = string(text)
		return nil
	}
	major, minor, pair := strings.Cut(strings.TrimSpace(numbers), ":")
	if !pair {
		return fmt.Errorf("source %q: %s", text, want)
	}
	s.device = true
	var err error
	if s.major, err = parseSpan(major); err != nil {
		return fmt.Errorf("source %q: major %w; %s", text, err, want)
	}
	if s.minor, err = parseSpan(minor); err != nil {
		return fmt.Errorf("source %q: minor %w; %s", text, err, want)
	}
	return nil
}

func parseSpan(text string) (span, error) {
	if text == "*" {
		return span{0, math.MaxUint32}, nil
	}
	from, to, ranged := strings.Cut(text, "-")
	if !ranged {
		to = from
	}
	first, err1 := strconv.ParseUint(from, 10, 32)
	last, err2 := strconv.ParseUint(to, 10, 32)
	switch {
	case err1 != nil || err2 != nil:
		return span{}, fmt.Errorf("%q is neither a number nor a range nor *", text)
	case last < first:
		return span{}, fmt.Errorf("range %q ends before it begins", text)
	}
	return span{uint32(first), uint32(last)}, nil
}

// allowsDevice says whether the rule allows a block device that the container
// calls name; "" is a name that matches nothing.
func (r *rule) allowsDevice(dev uint64, name string) bool {
	return slices.ContainsFunc(r.Source, func(s source) bool {
		if s.device {
			return s.major.holds(unix.Major(dev)) && s.minor.holds(unix.Minor(dev))
		}
		// A glob for images, which are the container's own files, is none for
		// devices that it may have put there.
		return (!r.Loop || strings.HasPrefix(s.glob, "/dev/")) && s.matches(name)
	})
}

// loopMajor is LOOP_MAJOR of linux/major.h.
const loopMajor = 7

// allowsImage says whether the rule allows a regular file that the container
// calls name. Where the rule has device numbers only it is about the loop
// device that the file gets: any, for which one is chance.
func (r *rule) allowsImage(name string) bool {
	if !r.Loop {
		return false
	}
	globs := false
	for _, s := range r.Source {
		if s.matches(name) {
			return true
		}
		globs = globs || !s.device
	}
	return !globs && (len(r.Source) == 0 || slices.ContainsFunc(r.Source, func(s source) bool { return s.major.holds(loopMajor) }))
}

// allowsName says whether the rule allows a source that is no file: a network
// filesystem's.
func (r *rule) allowsName(name string) bool {
	if strings.Contains(name, "//") && !strings.HasPrefix(name, "//") || slices.Contains(strings.FieldsFunc(name, isSeparator), "..") {
		return false // what a glob would take for one folder, and a server for another
	}
	return slices.ContainsFunc(r.Source, func(s source) bool { return s.matches(name) })
}

func isSeparator(c rune) bool { return c == '/' || c == '\\' || c == ':' }

func (s *source) matches(name string) bool {
	if s.device || name == "" {
		return false
	}
	ok, err := path.Match(s.glob, name)
	return ok && err == nil
}

// option is one entry of options: a name, or NAME=GLOB.
type option struct {
	key, glob string
	valued    bool
}

// UnmarshalText parses it.
func (o *option) UnmarshalText(text []byte) error {
	o.key, o.glob, o.valued = strings.Cut(string(text), "=")
	if !isKey(o.key) {
		return fmt.Errorf("option %q: want NAME or NAME=GLOB, such as noatime or data=*", text)
	}
	if never[o.key] {
		return fmt.Errorf("option %q: is the agent's to set", text)
	}
	if _, err := path.Match(o.glob, ""); err != nil {
		return fmt.Errorf("option %q: bad glob", text)
	}
	return nil
}

// never are parameters that name what is mounted, other devices, the agent's
// descriptors or security labels: no policy hands those over to a container.
var never = map[string]bool{
	"source": true, "unc": true, "prefixpath": true, "devname": true, "loop": true,
	"fd": true, "rfdno": true, "wfdno": true,
	"device": true, "journal_dev": true, "journal_path": true, "logdev": true, "rtdev": true,
	"context": true, "fscontext": true, "defcontext": true, "rootcontext": true,
}

func (o *option) matches(key, value string, valued bool) bool {
	if o.key != key || o.valued != valued {
		return false
	}
	if !valued {
		return true
	}
	ok, err := path.Match(o.glob, value)
	return ok && err == nil
}

// allowsOption says whether the filesystem's own option is allowed.
func (r *rule) allowsOption(o parameter) bool {
	if r.Options == nil {
		return false
	}
	return slices.ContainsFunc(*r.Options, func(have option) bool { return have.matches(o.key, o.value, o.valued) })
}

// names says whether options has a flag by its name.
func (r *rule) names(name string) bool {
	if r.Options == nil {
		return false
	}
	return slices.ContainsFunc(*r.Options, func(have option) bool { return have.key == name && !have.valued })
}
