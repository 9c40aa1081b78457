package integration

import (
	"path/filepath"
	"testing"
)

// TestBases: the stock profiles of podman and of Docker allow mknod without
// condition, which silently beats a conditional notification (libseccomp, any
// order). Made into ours they lead to the agent all the same, in every engine.
func TestBases(t *testing.T) {
	s := newStage(t, config)
	for _, base := range []string{"podman", "docker"} {
		file, err := filepath.Abs(filepath.Join("..", "hooks", "profile", "testdata", base+".json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"runc", "crun", "podman"} {
			t.Run(base+","+name, func(t *testing.T) {
				sub := *s
				sub.t = t
				v := setting{engine: name, userNamespace: true}
				c := sub.container(v, "/bin/probe", "run", "plain", "/work")
				if c.Seccomp, err = sub.agent.Profile("--base", file); err != nil {
					t.Fatal(err)
				}
				checkPlain(t, sub.runContainer(v, c), byDefault)
			})
		}
	}
}
