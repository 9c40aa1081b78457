package integration

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/probe"
)

// The outcomes of "plain" under the three profiles of config: the errno of
// c 1:3 and of c 1:5.
var (
	byDefault = [2]string{"", ""}
	narrowed  = [2]string{"", "EPERM"}
	off       = [2]string{"EPERM", "EPERM"}
)

func checkPlain(t *testing.T, results []probe.Result, want [2]string) {
	t.Helper()
	got := make(map[string]string)
	for _, r := range results {
		got[r.Name] = r.ErrName
	}
	for i, name := range []string{"mknod c 1:3", "mknod c 1:5"} {
		if errno, ok := got[name]; !ok || errno != want[i] {
			t.Errorf("%s: errno %q, want %q", name, errno, want[i])
		}
	}
}

// TestSelect: the operator's configuration chooses the profile, by what the
// registration says of the container.
func TestSelect(t *testing.T) {
	tests := []struct {
		name   string
		change func(*engine.Container)
		want   [2]string
	}{
		{"default", func(*engine.Container) {}, byDefault},
		{"metadata", func(c *engine.Container) { c.Seccomp.ListenerMetadata = "narrow" }, narrowed},
		{"metadata of no rule", func(c *engine.Container) { c.Seccomp.ListenerMetadata = "else" }, byDefault},
		{"annotation", func(c *engine.Container) {
			c.Annotations = map[string]string{"callgate.profile": "narrow", "a": "b"}
		}, narrowed},
		{"annotation of another value", func(c *engine.Container) {
			c.Annotations = map[string]string{"callgate.profile": "narrower"}
		}, byDefault},
		{"first match wins", func(c *engine.Container) {
			c.Seccomp.ListenerMetadata = "none"
			c.Annotations = map[string]string{"callgate.profile": "narrow"}
		}, off},
	}
	s := newStage(t, config)
	for _, name := range []string{"runc", "crun"} {
		for _, test := range tests {
			t.Run(name+","+test.name, func(t *testing.T) {
				sub := *s
				sub.t = t
				v := setting{engine: name, userNamespace: true}
				c := sub.container(v, "/bin/probe", "run", "plain", "/work")
				test.change(&c)
				checkPlain(t, sub.runContainer(v, c), test.want)
			})
		}
	}
}

// TestReload: SIGHUP changes what the next container gets, and a bad file
// changes nothing.
func TestReload(t *testing.T) {
	s := newStage(t, config)
	v := setting{engine: "runc", userNamespace: true}
	checkPlain(t, s.run(v, "plain"), byDefault)

	narrow := strings.Replace(config, `"c 1:5", `, "", 1)
	s.reload(narrow)
	eventually(t, func() bool { return errnoOf(s.run(v, "plain"), "mknod c 1:5") == "EPERM" })

	s.reload("profiles: {default: {mknod: {allow: [nonsense]}}}")
	time.Sleep(200 * time.Millisecond)
	// callgate profile, which starting a container takes, reads it too.
	if err := os.WriteFile(s.agent.Config, []byte(narrow), 0o600); err != nil {
		t.Fatal(err)
	}
	checkPlain(t, s.run(v, "plain"), narrowed)

	s.reload(config)
	eventually(t, func() bool { return errnoOf(s.run(v, "plain"), "mknod c 1:5") == "" })
}

func (s *stage) reload(config string) {
	s.t.Helper()
	if err := os.WriteFile(s.agent.Config, []byte(config), 0o600); err != nil {
		s.t.Fatal(err)
	}
	if err := s.agent.Reload(); err != nil {
		s.t.Fatal(err)
	}
}

func errnoOf(results []probe.Result, name string) string {
	for _, r := range results {
		if r.Name == name {
			return r.ErrName
		}
	}
	return "no result"
}

// eventually tries for a few seconds.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it did not come about")
		}
	}
}
