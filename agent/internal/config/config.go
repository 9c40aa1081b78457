// Package config reads the operator's configuration: who may register
// listeners, which calls each profile carries out and how, which container
// gets which profile, and the limits.
//
//	allowUids: [0]
//	profiles:
//	  default:
//	    mknod: {allow: ["c 1:3"]}
//	select:
//	  - {metadata: builder, profile: builder}
//	limits: {callTimeout: 30s}
//
// Every field is optional. A profile turns on the kinds that it names and no
// others; "mknod:" with nothing after it, or {}, is the kind with its built-in
// policy. A registration that no selector matches gets the profile "default";
// in a file that has none, and so in an empty file, such a container gets
// nothing at all. Only where there is no file does [Default] turn mknod on.
//
// The file is strict: what is not understood is an error, one line for each
// with file, line, column, field, and what was expected ([Errors]). Anchors,
// aliases, merge keys, tags and further documents are refused.
//
// # Decoding a policy
//
// The Policy given to a kind decodes into structs, pointers, slices, maps with
// string keys, strings, booleans, numbers, time.Duration, and types whose
// pointer is an encoding.TextUnmarshaler, whose error becomes the message. A
// field is named by the tag `yaml:"name"`, or by its Go name with a small first
// letter; `yaml:"name,required"` must be given; the tags min and max bound
// numbers and durations. A struct whose pointer has a method Validate() error
// has it called once its fields are right. Fields that the file does not name
// keep the value they had before: that is how a kind gives defaults. A list or
// map that the file does name replaces its default. A string is never made of a
// number or boolean that lacks quotes.
//
// A [Config] is never changed once it is made, and safe for concurrent use.
package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/callgate/callgate/emulators"
)

// Config is one configuration file.
type Config struct {
	// AllowUIDs may register listeners, in the host's ids. 0 is always among
	// them: root could take the listener from the agent anyway.
	AllowUIDs []uint32
	// Profiles by name. There need not be one named "default".
	Profiles map[string]*Profile
	// Select is in file order; see ProfileFor.
	Select []Selector
	Limits Limits
}

// document is the file's outermost mapping.
type document struct {
	AllowUIDs []uint32   `yaml:"allowUids" max:"4294967294"` // (uid_t)-1 is nobody
	Profiles  raw        `yaml:"profiles"`
	Select    []Selector `yaml:"select"`
	Limits    Limits     `yaml:"limits"`
}

// Parse reads a configuration from data; name stands in its errors for the
// file. Each kind that a profile names is made once, and discarded, so that
// what its policy gets wrong is found here. An error of the file is an
// *[Errors]; two kinds that overlap are the program's.
func Parse(name string, data []byte, kinds []emulators.Kind) (*Config, error) {
	if err := emulators.Overlap(kinds); err != nil {
		return nil, fmt.Errorf("list of kinds: %w", err)
	}
	r := &report{file: name}
	if len(data) > maxBytes {
		r.push(&Error{File: name, Message: fmt.Sprintf("larger than %d bytes", maxBytes)})
		return nil, r.err()
	}
	root := parseTree(data, r)
	if len(r.list) > 0 {
		return nil, r.err()
	}
	if root == nil {
		root = &node{}
	}
	doc := document{AllowUIDs: []uint32{0}, Limits: DefaultLimits()}
	d := &decoder{r: r}
	d.structure(root, reflect.ValueOf(&doc).Elem(), "")
	c := &Config{AllowUIDs: doc.AllowUIDs, Select: doc.Select, Limits: doc.Limits}
	if !slices.Contains(c.AllowUIDs, 0) {
		c.AllowUIDs = append([]uint32{0}, c.AllowUIDs...)
	}
	c.Profiles = d.profiles(doc.Profiles.n, kinds)
	d.checkSelect(root.child("select"), c)
	if err := r.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// Default is the configuration of a host that has no file: root registers, and
// the profile "default" has mknod on with its built-in policy (nothing on, if
// kinds has no mknod).
func Default(kinds []emulators.Kind) (*Config, error) {
	const source = "profiles: {default: {mknod: {}}}"
	for _, k := range kinds {
		if k.Name == "mknod" {
			return Parse("built-in configuration", []byte(source), kinds)
		}
	}
	return Parse("built-in configuration", nil, kinds)
}

// MayRegister says whether a process of this user, by SO_PEERCRED, may
// register listeners.
func (c *Config) MayRegister(uid uint32) bool {
	return uid == 0 || slices.Contains(c.AllowUIDs, uid)
}

func (c *Config) profileNames() []string {
	names := make([]string, 0, len(c.Profiles))
	for name := range c.Profiles {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d *decoder) profiles(n *node, kinds []emulators.Kind) map[string]*Profile {
	profiles := make(map[string]*Profile)
	if n == nil || n.kind == null {
		return profiles
	}
	if n.kind != mapping {
		d.wrongType(n, "profiles", "a mapping")
		return profiles
	}
	d.entries(n, "profiles", func(key, item *node) {
		path := join("profiles", key.text)
		if !isProfileName(key.text) {
			d.r.add(key, path, "want a name of letters, digits, dots, underscores and dashes, 64 at most")
			return
		}
		profiles[key.text] = d.profile(key.text, item, path, kinds)
	})
	return profiles
}

func (d *decoder) profile(name string, n *node, path string, kinds []emulators.Kind) *Profile {
	p := &Profile{Name: name}
	if n.kind != null && n.kind != mapping {
		d.wrongType(n, path, "a mapping")
		return p
	}
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.Name
	}
	policies := make(map[string]policy)
	d.entries(n, path, func(key, item *node) {
		where := join(path, key.text)
		switch {
		case !slices.Contains(names, key.text):
			d.r.add(key, where, "unknown kind, %s", choices(key.text, names))
		case item.kind != mapping && item.kind != null:
			d.wrongType(item, where, "a mapping (a kind that is not named is off)")
		default:
			policies[key.text] = policy{file: d.r.file, path: where, n: item}
		}
	})
	for _, k := range kinds {
		on, named := policies[k.Name]
		if !named {
			continue
		}
		tryKind(k, on, d.r)
		p.Policies = append(p.Policies, KindPolicy{Kind: k, Policy: on})
	}
	return p
}

// checkSelect reports the selectors whose profile does not exist.
func (d *decoder) checkSelect(list *node, c *Config) {
	if list == nil {
		return
	}
	for i, s := range c.Select {
		if at := list.items[i].child("profile"); at != nil && at.kind == str && c.Profiles[s.Profile] == nil {
			d.r.add(at, fmt.Sprintf("select[%d].profile", i), "no profile %s, %s", quote(s.Profile), choices(s.Profile, c.profileNames()))
		}
	}
}

func isProfileName(s string) bool {
	return s != "" && len(s) <= 64 && !strings.ContainsFunc(s, func(c rune) bool {
		return c != '.' && c != '_' && c != '-' &&
			(c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
}
