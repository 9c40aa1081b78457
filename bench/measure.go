package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/callgate/callgate/agent"
	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/seccompnotify"
)

// nothing is an emulator that does nothing.
type nothing struct{}

func (nothing) Emulate(context.Context, *emulators.Request) (emulators.Response, error) {
	return emulators.Return(0), nil
}

func nothingKind() emulators.Kind {
	return emulators.Kind{
		Name:     "nothing",
		Syscalls: []string{"sched_get_priority_max"},
		New: func(p emulators.Policy) (emulators.Emulator, error) {
			return nothing{}, p.Decode(&struct{}{})
		},
	}
}

// runs is how often each row is measured; the median run is shown, since one
// run may have had a bad neighbour.
const runs = 3

func measure(ctx context.Context, t *table, root string, calls, idle int) error {
	one := func(a *agent.Agent, t task, where confined, n int) func() ([]time.Duration, error) {
		return func() ([]time.Duration, error) { return together(ctx, a, t, where, n) }
	}
	trivial := task{Call: "trivial", Filter: filterTrap, Calls: calls}
	plain := task{Call: "mknod", Root: root, Path: "/node", Calls: calls}
	node := task{Call: "mknod", Root: root, Path: "/node", Filter: filterTrap, Plain: true, Calls: calls}
	handlers := task{Call: "mknod", Root: root, Path: "/node", Filter: filterTrap, Calls: calls}
	bound := task{Call: "mknod", Root: root, Path: "/dev/node", Tmpfs: "/dev", Filter: filterTrap, Plain: true, Calls: calls / 5}

	if err := t.row(rowFloor, 0, 0, func() ([]time.Duration, error) { return floor(ctx, trivial) }); err != nil {
		return err
	}
	if err := t.row(rowNative, 0, 0, one(nil, plain, asRoot, 1)); err != nil {
		return err
	}
	a, stop, err := serve(mknodProfile)
	if err != nil {
		return err
	}
	err = errors.Join(
		t.row(rowNothing, 1.5, 0, one(a, trivial, asRoot, 1)),
		t.row(rowNode, 8, 6, one(a, node, inContainer, 1)),
		t.row("mknod emulated, root filesystem, caller with signal handlers", 0, 0, one(a, handlers, inContainer, 1)),
		t.row("mknod emulated, tmpfs of the user namespace", 0, 0, one(a, bound, inContainer, 1)),
		t.row("agent that does nothing, 2 containers at once", 0, 0, one(a, trivial, asRoot, 2)),
		t.row("mknod emulated, root filesystem, 2 containers at once", 0, 0, one(a, node, inContainer, 2)),
	)
	if err != nil {
		return errors.Join(err, stop())
	}
	return errors.Join(withIdle(ctx, t, a, trivial, node, idle), stop())
}

// withIdle measures again beside listeners that have nothing to say.
func withIdle(ctx context.Context, t *table, a *agent.Agent, trivial, node task, n int) error {
	before := resident()
	p, err := start(ctx, task{Call: "idle", Filter: filterTrap, Idle: n}, asRoot)
	if err != nil {
		return err
	}
	for i := range n {
		fd, err := p.listener()
		if err != nil {
			return err
		}
		err = a.Register(ctx, agent.Registration{
			Listener: fd, ID: "idle-" + strconv.Itoa(i), PID: p.cmd.Process.Pid,
		})
		if err != nil {
			return err
		}
	}
	t.perListener(n, float64(resident()-before)/float64(n)/1024)
	one := func(t task, where confined) func() ([]time.Duration, error) {
		return func() ([]time.Duration, error) { return together(ctx, a, t, where, 1) }
	}
	err = errors.Join(
		t.rowBeside(fmt.Sprintf("agent that does nothing, beside %d idle listeners", n), rowNothing, one(trivial, asRoot)),
		t.rowBeside(fmt.Sprintf("mknod emulated, root filesystem, beside %d idle listeners", n), rowNode, one(node, inContainer)),
	)
	_ = p.cmd.Process.Kill() // its threads sleep for ever
	_ = p.end()              // killed
	return err
}

// resident is this process's resident memory in bytes, without garbage.
func resident() int {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		return 0
	}
	return pages * os.Getpagesize()
}

// mknodProfile is the containers'.
const mknodProfile = "{mknod: {}, nothing: {}}"

// serve starts an agent in this process: everything a runtime's listener goes
// through, but the socket.
func serve(profile string) (*agent.Agent, func() error, error) {
	log := logrus.New()
	log.SetLevel(logrus.WarnLevel)
	a := agent.New(agent.Config{
		Socket: agent.None, Control: agent.None, Log: log,
		Kinds:      append(agent.Kinds(), nothingKind()),
		ConfigText: "profiles: {default: " + profile + "}",
	})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- a.Serve(ctx) }()
	stop := func() error {
		cancel()
		return <-served
	}
	select {
	case <-a.Ready():
		return a, stop, nil
	case err := <-served:
		cancel()
		return nil, nil, err
	}
}

// together runs n subjects at once, registered with a if their calls are
// trapped, and returns all of their times.
func together(ctx context.Context, a *agent.Agent, t task, where confined, n int) ([]time.Duration, error) {
	var mu sync.Mutex
	var all []time.Duration
	var errs []error
	subjects := make([]*process, n)
	for i := range subjects {
		mine := t
		if n > 1 && t.Path != "" {
			mine.Path += strconv.Itoa(i)
		}
		p, err := enroll(ctx, a, mine, where)
		if err != nil {
			return nil, err
		}
		subjects[i] = p
	}
	var wg sync.WaitGroup
	for _, p := range subjects {
		wg.Go(func() {
			times, err := p.result()
			mu.Lock()
			defer mu.Unlock()
			all, errs = append(all, times...), append(errs, err)
		})
	}
	wg.Wait()
	return all, errors.Join(errs...)
}

// enroll starts a subject, and registers it with a if it has a listener.
func enroll(ctx context.Context, a *agent.Agent, t task, where confined) (*process, error) {
	p, err := start(ctx, t, where)
	if err != nil || !t.Filter.listens() {
		return p, err
	}
	fd, err := p.listener()
	if err != nil {
		return nil, err
	}
	pid := p.cmd.Process.Pid
	return p, a.Register(ctx, agent.Registration{Listener: fd, ID: "bench-" + strconv.Itoa(pid), PID: pid})
}

// inTurns runs subjects of the same number of calls, which take turns: noise
// hits all of them. It returns the times of each.
func inTurns(ctx context.Context, a *agent.Agent, each ...placed) ([][]time.Duration, error) {
	var subjects []*process
	for _, one := range each {
		one.Turns = true
		p, err := enroll(ctx, a, one.task, one.where)
		if err != nil {
			return nil, err
		}
		if err := p.begin(); err != nil {
			return nil, err
		}
		subjects = append(subjects, p)
	}
	for range each[0].Calls {
		for _, p := range subjects {
			if err := p.turn(); err != nil {
				return nil, err
			}
		}
	}
	all := make([][]time.Duration, len(subjects))
	for i, p := range subjects {
		times, err := p.collect()
		if err != nil {
			return nil, err
		}
		all[i] = times
	}
	return all, nil
}

// placed is a task and who does it.
type placed struct {
	task
	where confined
}

// floor receives and answers on one thread, and does nothing else.
func floor(ctx context.Context, t task) ([]time.Duration, error) {
	p, err := start(ctx, t, asRoot)
	if err != nil {
		return nil, err
	}
	fd, err := p.listener()
	if err != nil {
		return nil, err
	}
	l, err := seccompnotify.NewListener(fd)
	if err != nil {
		return nil, err
	}
	_ = l.SetFlags(seccompnotify.SyncWakeUp)
	ended := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		var n seccompnotify.Notification
		for answered := 0; answered < t.Calls; {
			err := l.Receive(&n)
			if err == nil {
				err = l.Return(n.ID, 0)
			}
			switch {
			case err == nil:
				answered++
			case !errors.Is(err, seccompnotify.ErrGone):
				ended <- err
				_ = p.cmd.Process.Kill() // or it waits for ever
				return
			}
		}
		ended <- nil
	}()
	times, err := p.result()
	if err != nil {
		// Nothing ends the loop where the subject has ended too early, but the
		// program's own end.
		return nil, err
	}
	return times, errors.Join(<-ended, l.Close())
}
