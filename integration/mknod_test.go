package integration

import (
	"strings"
	"testing"
)

// basic is a little of every subject, for the settings that do not run all.
const basic = "plain,refused,other-types,whiteout,umask,setgid-dir,dirfd,exists,missing,memory," +
	"user,user-mknod,no-cap,nested-userns,thread,leader-gone,clone-fs,tmpfs,narrow,loop"

// small leaves out what makes nodes by the hundred: on a tmpfs of the user
// namespace each is a mount.
const small = "plain,refused,other-types,whiteout,modes,umask,setgid-dir,acl-dir,removed-dir,dirfd,dirfd-bad," +
	"exists,missing,symlinks,shapes,magic-links,chroot,user,user-mknod,user-groups,user-override,fs-ids,no-cap," +
	"no-override,nested-userns,thread,leader-gone,clone-files,clone-fs,thread-creds,bind,bind-readonly,bind-nodev,i386,narrow"

// i386 are the scenarios for a caller that is a 32-bit program.
const i386 = "plain,refused,other-types,whiteout,modes,dirfd,dirfd-bad,exists,lengths,memory,user-mknod," +
	"fs-ids,thread,clone-files,tmpfs,signals,loop"

func TestMknod(t *testing.T) {
	tests := []struct {
		setting
		scenarios string
	}{
		{setting{engine: "runc", userNamespace: true}, "all"},
		{setting{engine: "runc", userNamespace: true, dir: "/dev/probe"}, small},
		{setting{engine: "runc", userNamespace: true, program: "probe32"}, i386},
		{setting{engine: "runc", userNamespace: true, noNewPrivileges: true}, basic},
		{setting{engine: "runc"}, "all"},
		{setting{engine: "runc", dir: "/dev/probe"}, small},
		{setting{engine: "runc", noNewPrivileges: true}, basic},
		{setting{engine: "crun", userNamespace: true}, "all"},
		{setting{engine: "crun", userNamespace: true, dir: "/dev/probe"}, small},
		{setting{engine: "crun", userNamespace: true, noNewPrivileges: true}, basic},
		{setting{engine: "crun"}, basic},
		{setting{engine: "crun", noNewPrivileges: true}, basic},
		{setting{engine: "podman", userNamespace: true}, basic},
		{setting{engine: "podman", userNamespace: true, noNewPrivileges: true}, basic},
		{setting{engine: "podman"}, basic},
		{setting{engine: "podman", noNewPrivileges: true}, basic},
	}
	s := newStage(t, config)
	for _, test := range tests {
		t.Run(test.setting.String(), func(t *testing.T) {
			sub := *s
			sub.t = t
			got := sub.run(test.setting, test.scenarios)
			compare(t, test.setting, sub.golden(test.setting, test.scenarios), got)
		})
	}
}

// TestWithoutAgent shows that the tests test something: without callgate the
// kernel refuses a container with a user namespace every device.
func TestWithoutAgent(t *testing.T) {
	s := newBareStage(t)
	for _, name := range []string{"runc", "crun", "podman"} {
		t.Run(name, func(t *testing.T) {
			sub := *s
			sub.t = t
			v := setting{engine: name, userNamespace: true}
			for _, r := range sub.run(v, "plain,whiteout") {
				want := "EPERM"
				if strings.HasSuffix(r.Name, "onto a file") {
					want = "EEXIST"
				} else if r.Scenario == "whiteout" {
					want = "" // since Linux 5.8
				}
				if r.ErrName != want {
					t.Errorf("%s: %s, want %q", r.Key(), r, want)
				}
			}
		})
	}
}

// TestNoCapability: a container that was not given CAP_MKNOD gets no device
// from callgate either.
func TestNoCapability(t *testing.T) {
	s := newStage(t, config)
	for _, name := range []string{"runc", "crun"} {
		t.Run(name, func(t *testing.T) {
			sub := *s
			sub.t = t
			v := setting{engine: name, userNamespace: true}
			c := sub.container(v, "/bin/probe", "run", "plain", "/work")
			c.DropMknod = true
			for _, r := range sub.runContainer(v, c) {
				if r.ErrName != "EPERM" || r.Node != nil {
					t.Errorf("%s: %s", r.Key(), r)
				}
			}
		})
	}
}
