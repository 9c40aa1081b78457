package tracee

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// overriding are the capabilities that let a task past file permissions.
const overriding = Capabilities(1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH)

// Actor is in whose name a Thread works: an identity, and those capabilities
// over files that the caller holds in its user namespace. They count where
// the owner of the inode is mapped there, and nowhere else
// (capable_wrt_inode_uidgid of the kernel).
type Actor struct {
	Identity
	Override Capabilities
	// Holds are capabilities that what is done needs and that no lookup asks
	// for: with them in force throughout, none has to be changed in between.
	Holds  Capabilities
	caller *Tracee
	uids   idMap
	gids   idMap
}

// Actor reads who the caller is. privileged says that its capabilities count:
// that its user namespace is the container's.
func (t *Tracee) Actor(privileged bool) (Actor, error) {
	status, err := t.Status()
	if err != nil {
		return Actor{}, err
	}
	who := Actor{Identity: status.Identity(), caller: t}
	if privileged {
		who.Override = status.Effective & overriding
	}
	return who, nil
}

// Owns says whether the inode's owner and group are mapped in the caller's
// user namespace: whether a capability that the caller holds counts for it.
func (a *Actor) Owns(st *Stat) (bool, error) {
	if a.uids == nil {
		if err := a.loadMaps(); err != nil {
			return false, err
		}
	}
	return a.uids.holds(st.UID) && a.gids.holds(st.GID), nil
}

// Detach makes the actor one without its caller, who may be gone: what is not
// known about it by now does not count.
func (a *Actor) Detach() {
	if a.uids == nil {
		a.Override = 0
	}
	a.caller = nil
}

// loadMaps reads the caller's id maps; most calls never need them.
func (a *Actor) loadMaps() error {
	for _, m := range []struct {
		name string
		into *idMap
	}{{"uid_map", &a.uids}, {"gid_map", &a.gids}} {
		text, err := a.caller.proc.read(a.caller.tid, m.name, nil, 64<<10)
		if err = a.caller.settle(err); err != nil {
			return fmt.Errorf("read caller's %s: %w", m.name, err)
		}
		if *m.into, err = parseIDMap(string(text)); err != nil {
			return fmt.Errorf("read caller's %s: %w", m.name, err)
		}
	}
	return nil
}

// Within runs f as the actor with caps; f works on entries of dir. If
// permissions stop it (EACCES) and the actor's own capabilities apply to dir,
// f runs once more with them.
func (t *Thread) Within(who *Actor, dir *Handle, caps Capabilities, f func() error) error {
	caps |= who.Holds
	err := t.As(&who.Identity, caps, f)
	if !errors.Is(err, unix.EACCES) || who.Override == 0 {
		return err
	}
	st, statErr := dir.Stat()
	if statErr != nil {
		return statErr
	}
	owns, mapErr := who.Owns(&st)
	if mapErr != nil {
		return mapErr
	}
	if !owns {
		return err
	}
	return t.As(&who.Identity, caps|who.Override, f)
}

// idMap is one of user_namespaces(7)'s maps: ranges of the supervisor's ids.
type idMap []idRange

type idRange struct{ first, count uint64 }

// overflowID is what an id shows as that a mount or a namespace does not map.
// It may be the real nobody; taking it for unmapped denies, never grants.
const overflowID = 65534

func (m idMap) holds(id uint32) bool {
	if id == overflowID {
		return false
	}
	for _, r := range m {
		if uint64(id) >= r.first && uint64(id)-r.first < r.count {
			return true
		}
	}
	return false
}

func parseIDMap(text string) (idMap, error) {
	m := idMap{}
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			return nil, fmt.Errorf("parse %q: want 3 numbers", line)
		}
		first, err := strconv.ParseUint(fields[1], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse %q: %w", line, err)
		}
		count, err := strconv.ParseUint(fields[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("parse %q: %w", line, err)
		}
		m = append(m, idRange{first, count})
	}
	return m, nil
}
