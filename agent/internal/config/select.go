package config

import (
	"errors"
	"fmt"
	"strings"
)

// DefaultProfile is the profile of a registration that no selector matches.
const DefaultProfile = "default"

// Selector gives registrations a profile. All of the matchers that it has must
// match, and it has at least one.
type Selector struct {
	// Metadata is the listenerMetadata of the OCI specification, compared
	// whole; nil matches any.
	Metadata *string `yaml:"metadata"`
	// Annotation must be on the container with exactly this value; nil
	// matches any.
	Annotation *Annotation `yaml:"annotation"`
	// UID is the user that registers, not one inside the container; nil
	// matches any.
	UID *uint32 `yaml:"uid" max:"4294967294"`
	// Profile is the name of a profile that exists.
	Profile string `yaml:"profile,required"`
}

// Annotation is an OCI annotation, in the file "key=value".
type Annotation struct {
	Key, Value string
}

// UnmarshalText splits at the first equals sign: a key holds none.
func (a *Annotation) UnmarshalText(text []byte) error {
	key, value, found := strings.Cut(string(text), "=")
	if !found || key == "" {
		return errors.New("want key=value")
	}
	a.Key, a.Value = key, value
	return nil
}

// String is the form of the file.
func (a Annotation) String() string { return a.Key + "=" + a.Value }

// Validate says what the fields by themselves do not.
func (s *Selector) Validate() error {
	if s.Metadata == nil && s.Annotation == nil && s.UID == nil {
		return errors.New("nothing to match, want at least one of: metadata, annotation, uid")
	}
	return nil
}

// Registration is what is known about a listener when its profile is chosen.
type Registration struct {
	Metadata    string            // listenerMetadata
	Annotations map[string]string // of the container's OCI configuration
	UID         uint32            // of the registering process, by SO_PEERCRED
}

func (s *Selector) matches(r Registration) bool {
	if s.Metadata != nil && *s.Metadata != r.Metadata {
		return false
	}
	if s.UID != nil && *s.UID != r.UID {
		return false
	}
	if s.Annotation == nil {
		return true
	}
	value, there := r.Annotations[s.Annotation.Key]
	return there && value == s.Annotation.Value
}

// ProfileFor returns the profile of the first selector that matches, or the
// profile "default" if none does. Never nil: where the file has no profile
// "default", it is one that turns nothing on.
func (c *Config) ProfileFor(r Registration) *Profile {
	for i := range c.Select {
		if !c.Select[i].matches(r) {
			continue
		}
		if p := c.Profiles[c.Select[i].Profile]; p != nil {
			return p
		}
		// Parse lets no such selector through; a Config made by hand must
		// not fall to a profile that allows more.
		return &Profile{Name: c.Select[i].Profile}
	}
	if p := c.Profiles[DefaultProfile]; p != nil {
		return p
	}
	return &Profile{Name: DefaultProfile}
}

// Profile returns the profile that a flag names, "" meaning "default". The
// error says which there are. A file without a profile "default" has one that
// turns nothing on.
func (c *Config) Profile(name string) (*Profile, error) {
	if name == "" {
		name = DefaultProfile
	}
	if p := c.Profiles[name]; p != nil {
		return p, nil
	}
	if name == DefaultProfile {
		return &Profile{Name: DefaultProfile}, nil
	}
	return nil, fmt.Errorf("no profile %s: %s", quote(name), choices(name, c.profileNames()))
}
