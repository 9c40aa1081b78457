package mknod

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// policy is the kind's part of a profile.
type policy struct {
	// Allow lists the devices that a container may make; absent, defaults.
	Allow []device `yaml:"allow"`
}

// device is one entry of the list: a type and two ranges of numbers.
type device struct {
	kind         uint32 // S_IFCHR or S_IFBLK
	major, minor span
}

type span struct{ first, last uint32 }

func (s span) holds(n uint32) bool { return s.first <= n && n <= s.last }

// defaults are what every runtime gives its containers anyway (null, zero,
// full, random, urandom, tty, console, ptmx).
func defaults() []device {
	one := func(major, minor uint32) device {
		return device{unix.S_IFCHR, span{major, major}, span{minor, minor}}
	}
	return []device{
		one(1, 3), one(1, 5), one(1, 7), one(1, 8), one(1, 9),
		one(5, 0), one(5, 1), one(5, 2),
	}
}

// maxMajor and maxMinor are the largest numbers that mknod(2) can carry.
const (
	maxMajor = 1<<12 - 1
	maxMinor = 1<<20 - 1
)

// UnmarshalText parses "TYPE MAJOR:MINOR": c or b, and for each number itself,
// a range or *.
func (d *device) UnmarshalText(text []byte) error {
	const want = `want TYPE MAJOR:MINOR, such as "c 10:200", "b 7:*" or "b 8:0-15"`
	kind, numbers, ok := strings.Cut(string(text), " ")
	major, minor, pair := strings.Cut(strings.TrimSpace(numbers), ":")
	if !ok || !pair {
		return fmt.Errorf("device %q: %s", text, want)
	}
	switch kind {
	case "c":
		d.kind = unix.S_IFCHR
	case "b":
		d.kind = unix.S_IFBLK
	default:
		return fmt.Errorf("device %q: type %q: %s", text, kind, want)
	}
	var err error
	if d.major, err = parseSpan(major, maxMajor); err != nil {
		return fmt.Errorf("device %q: major %w; %s", text, err, want)
	}
	if d.minor, err = parseSpan(minor, maxMinor); err != nil {
		return fmt.Errorf("device %q: minor %w; %s", text, err, want)
	}
	return nil
}

func parseSpan(text string, most uint32) (span, error) {
	if text == "*" {
		return span{0, math.MaxUint32}, nil
	}
	from, to, ranged := strings.Cut(text, "-")
	first, err := parseNumber(from, most)
	if err != nil {
		return span{}, err
	}
	if !ranged {
		return span{first, first}, nil
	}
	last, err := parseNumber(to, most)
	if err != nil {
		return span{}, err
	}
	if last < first {
		return span{}, fmt.Errorf("range %q ends before it begins", text)
	}
	return span{first, last}, nil
}

func parseNumber(text string, most uint32) (uint32, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || uint32(n) > most {
		return 0, fmt.Errorf("%q is no number from 0 to %d", text, most)
	}
	return uint32(n), nil
}

// allows says whether a call may make its device.
func (p *policy) allows(c *call) bool {
	for i := range p.Allow {
		d := &p.Allow[i]
		if d.kind == c.kind && d.major.holds(c.major) && d.minor.holds(c.minor) {
			return true
		}
	}
	return false
}
