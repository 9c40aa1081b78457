package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/agent/internal/anchor"
	"github.com/callgate/callgate/agent/internal/config"
	"github.com/callgate/callgate/agent/internal/control"
	"github.com/callgate/callgate/agent/internal/dispatch"
	"github.com/callgate/callgate/agent/internal/intake"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/pidfd"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// Registration hands a listener to an agent from within the same program.
type Registration struct {
	// Listener is the listener's descriptor; the agent owns it from then on,
	// also when Register fails.
	Listener int
	// ID is the container's name. Listeners with one ID share its limits and
	// the first one's profile.
	ID string
	// PID is a process in the container's user namespace, such as its first.
	PID int
	// Profile names the configuration's profile; "": as the configuration
	// selects by Metadata and Annotations.
	Profile     string
	Metadata    string
	Annotations map[string]string
}

// Register serves a listener. It waits until the agent serves, or ctx is done.
func (a *Agent) Register(ctx context.Context, r Registration) error {
	select {
	case <-a.ready:
	case <-ctx.Done():
		return errors.Join(ctx.Err(), unix.Close(r.Listener))
	}
	l, err := seccompnotify.NewListener(r.Listener)
	if err != nil {
		return fmt.Errorf("container %q: %w", r.ID, err)
	}
	return a.register(claim{
		listener: l, id: r.ID, pid: r.PID, profile: r.Profile,
		metadata: r.Metadata, annotations: r.Annotations, joins: r.PID == 0,
	})
}

// claim is a registration, however it came: what the other side says.
type claim struct {
	listener    *seccompnotify.Listener
	id          string
	pid         int  // 0: the runtime does not know
	begins      bool // comes with a container's start
	joins       bool // comes with an exec into a container that runs
	uid         uint32
	profile     string
	metadata    string
	annotations map[string]string
}

// fromRuntime registers what came by the socket.
func (a *Agent) fromRuntime(r intake.Registration) error {
	pid := r.State.State.Pid // the container's first process, also for an exec
	if pid == 0 {
		pid = r.State.Pid
	}
	return a.register(claim{
		listener: r.Listener, id: r.State.State.ID, pid: pid, uid: r.Peer.Uid,
		// Both numbers are the container's first process's when it starts.
		begins:   pid > 0 && r.State.Pid == r.State.State.Pid,
		joins:    pid == 0 || r.State.Pid != r.State.State.Pid,
		metadata: r.State.Metadata, annotations: r.State.State.Annotations,
	})
}

// key tells containers apart: a user's names are its own.
type key struct {
	uid uint32
	id  string
}

// entry is a container that has listeners.
type entry struct {
	key       key
	container *dispatch.Container
	ns        pidfd.NSID // zero: not known when it came
}

func (a *Agent) register(c claim) error {
	err := a.serve(c)
	fields := logrus.Fields{"container": c.id, "uid": c.uid, "pid": c.pid}
	if err != nil {
		return fmt.Errorf("container %q: %w", c.id, err)
	}
	a.log.WithFields(fields).Info("listener registered")
	return nil
}

func (a *Agent) serve(c claim) error {
	give := func(err error) error { return errors.Join(err, c.listener.Close()) }
	ns, err := identify(c)
	if err != nil {
		return give(err)
	}
	limit := a.config.Load().Limits.ListenersPerUID
	if !a.count(c.uid, limit) {
		return give(fmt.Errorf("user %d has %d listeners, which is the limit", c.uid, limit))
	}
	released := func() { a.discount(c.uid) }
	container, err := a.container(c, ns)
	if err != nil {
		released()
		return give(err)
	}
	defer container.Release()
	if err := a.serving.Load().Add(container, c.listener, released); err != nil {
		released()
		return err
	}
	return nil
}

// identify finds the claimed container's user namespace; the zero value if the
// runtime sent no pid.
func identify(c claim) (pidfd.NSID, error) {
	switch {
	case c.pid > 0 && c.joins:
		return anchor.FromExec(c.pid, c.uid)
	case c.pid > 0:
		return anchor.FromPID(c.pid, c.uid)
	case c.uid != 0:
		return pidfd.NSID{}, errors.New("no pid, without which only root may register")
	default:
		return pidfd.NSID{}, nil
	}
}

func (a *Agent) count(uid uint32, limit int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listeners[uid] >= limit {
		return false
	}
	a.listeners[uid]++
	return true
}

func (a *Agent) discount(uid uint32) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.listeners[uid]--; a.listeners[uid] == 0 {
		delete(a.listeners, uid)
	}
}

// container finds the container that a listener belongs to, or makes it, and
// holds it.
func (a *Agent) container(c claim, ns pidfd.NSID) (*dispatch.Container, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := key{c.uid, c.id}
	profile, err := a.profile(c)
	if err != nil {
		return nil, err
	}
	if e := a.containers[k]; e != nil && e.is(c, ns, profile.Name) && e.container.Hold() {
		return e.container, nil
	}
	enabled, err := profile.Emulators()
	if err != nil {
		return nil, err
	}
	byName := make(map[string]emulators.Emulator, len(enabled))
	for _, on := range enabled {
		byName[on.Kind.Name] = on.Emulator
	}
	e := &entry{key: k, ns: ns}
	e.container = a.serving.Load().NewContainer(dispatch.ContainerConfig{
		ID: c.id, Profile: profile.Name, Emulators: byName, UserNamespace: ns,
	})
	a.containers[k] = e
	return e.container, nil
}

// is says whether a listener with that claim belongs to the container. A name
// that is used again while the last bearer's listeners are still being closed
// belongs to another. What joins a container that the agent knows belongs to
// it, whatever namespaces its first process has gone into since.
func (e *entry) is(c claim, ns pidfd.NSID, profile string) bool {
	if c.joins {
		return true
	}
	return e.ns == ns && (!c.begins || e.container.Profile() == profile)
}

func (a *Agent) profile(c claim) (*config.Profile, error) {
	cfg := a.config.Load()
	if c.profile != "" {
		return cfg.Profile(c.profile)
	}
	return cfg.ProfileFor(config.Registration{Metadata: c.metadata, Annotations: c.annotations, UID: c.uid}), nil
}

// ended forgets a container that has no listeners any more.
func (a *Agent) ended(c *dispatch.Container, err error) {
	a.mu.Lock()
	for k, e := range a.containers {
		if e.container == c {
			delete(a.containers, k)
		}
	}
	a.mu.Unlock()
	entry := a.log.WithField("container", c.ID())
	if err != nil {
		entry.WithError(err).Error("container ended, cleaning up after it did not succeed")
		return
	}
	entry.Info("container ended")
}

// Containers tells what is being served, by name.
func (a *Agent) Containers() []control.Container {
	a.mu.Lock()
	list := make([]control.Container, 0, len(a.containers))
	for k, e := range a.containers {
		s := e.container.Snapshot()
		list = append(list, control.Container{
			ID: k.id, UID: k.uid, Profile: e.container.Profile(),
			Listeners: s.Listeners, InFlight: s.InFlight, Calls: s.Counts,
		})
	}
	a.mu.Unlock()
	slices.SortFunc(list, func(a, b control.Container) int {
		return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.UID, b.UID))
	})
	return list
}
