package integration

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"
)

// everyRuntime runs f for runc and crun, with and without no_new_privs, in
// containers with a user namespace.
func everyRuntime(t *testing.T, f func(*stage, setting)) {
	s := newStage(t, config)
	for _, name := range []string{"runc", "crun"} {
		for _, nnp := range []bool{false, true} {
			v := setting{engine: name, userNamespace: true, noNewPrivileges: nnp}
			t.Run(v.String(), func(t *testing.T) {
				sub := *s
				sub.t = t
				f(&sub, v)
			})
		}
	}
}

// TestExec: sessions entered later are served like the first process.
func TestExec(t *testing.T) {
	everyRuntime(t, func(s *stage, v setting) {
		r := s.runtime(v.engine)
		c := s.container(v, "/bin/probe", "pause")
		s.start(r, c)
		const scenarios = "plain,refused,dirfd,user-mknod,thread,nested-userns"
		golden := s.golden(v, scenarios)
		compare(s.t, v, golden, s.exec(r, c, scenarios, "/work/first"))
		compare(s.t, v, golden, s.exec(r, c, scenarios, "/work/second"))
	})
}

// TestExecTogether: many sessions of one container at once.
func TestExecTogether(t *testing.T) {
	s := newStage(t, config)
	v := setting{engine: "runc", userNamespace: true}
	r := s.runtime("runc")
	c := s.container(v, "/bin/probe", "pause")
	s.start(r, c)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var wait sync.WaitGroup
	for _, dir := range []string{"/work/a", "/work/b", "/work/c", "/work/d"} {
		wait.Go(func() {
			out, err := r.Exec(ctx, c, "/bin/probe", "run", "thread-storm", dir)
			if err != nil || !strings.Contains(string(out), `"name":"made","ret":400`) {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	wait.Wait()
}

// TestKilled: a second after the container's first process was killed nothing
// is left of it, calls in flight or not.
func TestKilled(t *testing.T) {
	everyRuntime(t, func(s *stage, v setting) {
		s.run(v, "plain") // whatever the agent opens once is open now
		before := s.holds()
		for _, scenario := range []string{"", "thread-storm,thread-race,signals", "killed"} {
			s.killDuring(v, scenario)
			s.agent.AwaitNoMoreThan(s.t, before)
		}
	})
}

// killDuring starts a container, runs scenarios in it and kills its first
// process meanwhile.
func (s *stage) killDuring(v setting, scenarios string) {
	s.t.Helper()
	r := s.runtime(v.engine)
	c := s.container(v, "/bin/probe", "pause")
	s.start(r, c)
	eventually(s.t, func() bool { return s.knows(c.ID) })
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := make(chan struct{})
	if scenarios != "" {
		go func() {
			defer close(ended)
			// It fails: it is killed with its container.
			_, _ = r.Exec(ctx, c, "/bin/probe", "run", scenarios, "/work/killed")
		}()
		time.Sleep(150 * time.Millisecond)
	} else {
		close(ended)
	}
	if err := r.Kill(ctx, c.ID); err != nil {
		s.t.Fatal(err)
	}
	gone := time.Now().Add(time.Second)
	for s.knows(c.ID) {
		if time.Now().After(gone) {
			s.t.Error("a second after the kill the agent still lists the container")
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		s.t.Error("the exec session outlives its container")
	}
}

func (s *stage) knows(id string) bool {
	s.t.Helper()
	knows, err := s.agent.Knows(id)
	if err != nil {
		s.t.Fatal(err)
	}
	return knows
}

// TestPS: the running container is listed.
func TestPS(t *testing.T) {
	s := newStage(t, config)
	v := setting{engine: "runc", userNamespace: true}
	c := s.container(v, "/bin/probe", "pause")
	s.start(s.runtime("runc"), c)
	eventually(t, func() bool { return s.knows(c.ID) })
	out, err := s.agent.PS()
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, c.ID) {
		t.Errorf("callgate ps --json does not list %s:\n%s", c.ID, out)
	}
}

// TestLeaks: containers come and go, and the agent stays as it is.
func TestLeaks(t *testing.T) {
	s := newStage(t, config)
	v := setting{engine: "runc", userNamespace: true}
	s.run(v, small)
	before := s.holds()
	for range 8 {
		s.run(v, "plain,tmpfs,dirfd,thread,leader-gone,killed")
	}
	s.run(v, small)
	s.agent.AwaitNoMoreThan(t, before)
}

// TestHalfOpen: crun with no_new_privs connects at create and sends at start.
// In between, and however long that is, everybody else is served.
func TestHalfOpen(t *testing.T) {
	s := newStage(t, config)
	waiting := setting{engine: "crun", userNamespace: true, noNewPrivileges: true}
	crun := s.runtime("crun")
	first := s.container(waiting, "/bin/probe", "pause")
	s.create(crun, first)

	for _, name := range []string{"runc", "crun"} {
		v := setting{engine: name, userNamespace: true}
		began := time.Now()
		compare(t, v, s.goldenNamed(v, "plain"), s.run(v, "plain"))
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s beside a half-open connection took %v", name, took)
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := crun.Start(ctx, first.ID); err != nil {
		t.Fatal(err)
	}
	compare(t, waiting, s.goldenNamed(waiting, "plain"), s.exec(crun, first, "plain", "/work/late"))
}
