package integration

import (
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/callgate/callgate/integration/internal/engine"
	"github.com/callgate/callgate/integration/internal/probe"
)

// golden is what the kernel does for real root with the setting's program in
// the setting's directory; its engine does not count.
func (s *stage) golden(v setting, scenarios string) []probe.Result {
	s.t.Helper()
	rootfs := filepath.Join(s.dir, "golden-"+strings.ReplaceAll(s.t.Name(), "/", "_"))
	if err := engine.MakeRootfs(rootfs, false, s.probes.Native, s.probes.I386); err != nil {
		s.t.Fatal(err)
	}
	results, err := probe.Native(rootfs, v.probeProgram(), scenarios, v.workDir())
	if err != nil {
		s.t.Fatal(err)
	}
	return results
}

// exception is a place where a container must, or may, differ from real root.
type exception struct {
	key  string // a regular expression for probe.Result.Key
	when func(setting) bool
	// Every outcome that is right; "*" for any.
	want []string
	why  string
}

// userTmpfs: in a user namespace a tmpfs that the container mounted, or the
// runtime for it, has SB_I_NODEV. A node made there cannot be opened.
func userTmpfs(v setting) bool { return v.userNamespace && strings.HasPrefix(v.dir, "/dev") }

func userNamespace(v setting) bool { return v.userNamespace }

func always(setting) bool { return true }

// interruptible: the runtime does not set SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV.
func interruptible(v setting) bool { return v.engine != "crun" }

// counts are what the probe reports of the numbers from least to most.
func counts(least, most int) (all []string) {
	for n := least; n <= most; n++ {
		all = append(all, fmt.Sprintf("ret %d, no node", n))
	}
	return all
}

const overtaken = "the kernel drops an answer that a signal overtakes and tells nobody; the call made anew finds the node. " +
	"A signal every 300 µs does it to a few in a thousand calls"

var exceptions = []exception{
	{`^unmapped-owner/`, userNamespace, []string{"ret -1 EACCES, no node"},
		"CAP_DAC_OVERRIDE does not count where the owner is not mapped"},
	{`^tmpfs(-own-ns)?/(rename|unlink|chmod|chown)$`, userNamespace, []string{"*"},
		"the node is a bind mount, so that it opens; the host's node is checked in hostState"},
	{`^(bind/(seen behind it|dirfd into a mount that is gone)|bind-nodev/of use there)$`, userTmpfs, []string{"*"},
		"a bind mount over the node's name stands in one mount and is not seen through another"},
	{`^acl-dir/inherited ACL$`, userTmpfs, []string{"*"},
		"the ACL is that of the file beneath the bind mount"},
	{`^signals-norestart/(returned 0|EINTR)$`, always, []string{"*"},
		"a signal handler without SA_RESTART makes any notified call EINTR; with " +
			"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV only until the agent has received it"},
	{`^signals/returned 0$`, interruptible, counts(490, 500), overtaken},
	{`^signals/(EEXIST|failed but there (at once|in the end))$`, interruptible, counts(0, 10), overtaken},
	{`^signals-norestart/(EEXIST|failed but there in the end)$`, interruptible, counts(0, 10), overtaken},
	{`^signals-norestart/failed but there at once$`, interruptible, []string{"*"},
		"and goes on while the agent takes back what it did: the node is gone in the end, not at once"},
	{`^bind/dirfd into a mount that is gone$`, always, []string{"ret -1 EPERM, no node", "ret 0, char 020644 1:3 of 0:0, open ok, read eof"},
		"a mount that is in no namespace cannot be told from one of the host's that leaked, unless it was known before"},
	{`^magic-links//proc/1/root$`, always, []string{"ret -1 EACCES, no node"},
		"another process's magic links are the caller's to follow, by a right that the agent does not judge"},
	{`^magic-links/(in /proc/self|onto /proc/self/exe)$`, always, []string{"ret -1 ENOENT, no node", "ret -1 EACCES, no node", "ret -1 EEXIST, no node"},
		"nothing can be made in a procfs; which errno says so is not promised"},
	{`^overlay/in the upper directory$`, userNamespace, []string{"*"},
		"an overlay of the user namespace is nodev as well; what lies beneath the bind mount is not promised"},
}

// policy tells whether the configuration allows a device.
func policy(n *probe.Node) bool {
	switch n.Type {
	case "char":
		numbers := [][2]uint32{{0, 0}, {1, 3}, {1, 5}, {1, 7}, {1, 8}, {1, 9}, {5, 0}, {5, 1}, {5, 2}, {10, 200}}
		return slices.Contains(numbers, [2]uint32{n.Major, n.Minor})
	case "block":
		return n.Major == 7
	}
	return true
}

// accepted are the outcomes that are right in a container where real root's
// is golden.
func accepted(v setting, golden probe.Result) []string {
	for _, e := range exceptions {
		if e.when(v) && regexp.MustCompile(e.key).MatchString(golden.Key()) {
			return e.want
		}
	}
	want := golden.String()
	if golden.Ret == 0 && golden.Node != nil && !policy(golden.Node) {
		return []string{"ret -1 EPERM, no node"}
	}
	if isRefusal(golden) {
		// Policy may speak before the path does.
		return []string{want, strings.Replace(want, golden.ErrName, "EPERM", 1)}
	}
	whiteout := golden.Node != nil && golden.Node.Type == "char" && golden.Node.Major == 0
	if whiteout && v.userNamespace && (userTmpfs(v) || strings.HasPrefix(golden.Scenario, "tmpfs")) {
		return []string{strings.Replace(want, "open ENXIO", "open EACCES", 1)}
	}
	return []string{want}
}

// isRefusal: the call asks for a device that policy refuses, and fails for
// another reason already.
func isRefusal(golden probe.Result) bool {
	return golden.Ret < 0 && (golden.Scenario == "refused" || strings.HasPrefix(golden.Name, "refused"))
}

// compare reports every call whose outcome is not the one real root got, or
// one of its exceptions.
func compare(t *testing.T, v setting, golden, got []probe.Result) {
	t.Helper()
	found := make(map[string]probe.Result)
	for _, r := range got {
		found[r.Key()] = r
	}
	for _, g := range golden {
		if g.Time {
			continue
		}
		r, ok := found[g.Key()]
		delete(found, g.Key())
		if !ok {
			t.Errorf("%s: no result; natively %s", g.Key(), g)
			continue
		}
		want := accepted(v, g)
		if !slices.Contains(want, r.String()) && !slices.Contains(want, "*") {
			t.Errorf("%s:\n\t     got %s\n\t    want %s\n\tnatively %s", g.Key(), r, strings.Join(want, "\n\t      or "), g)
		}
	}
	for key, r := range found {
		if !r.Time {
			t.Errorf("%s: %s; natively there was no such result", key, r)
		}
	}
}

// TestGolden checks the yardstick: the native run works, names no call twice,
// and sets up everything it needs.
func TestGolden(t *testing.T) {
	s := newBareStage(t)
	for _, v := range []setting{{}, {dir: "/dev/probe"}, {program: "probe32"}} {
		seen := make(map[string]bool)
		results := s.goldenNamed(v, "all")
		for _, r := range results {
			if seen[r.Key()] {
				t.Errorf("%s: named twice", r.Key())
			}
			seen[r.Key()] = true
			if regexp.MustCompile("^(set-up|killed by|exit status|timeout)").MatchString(r.Name) {
				t.Errorf("%s: %s", r.Key(), r)
			}
		}
		if len(results) < 200 {
			t.Errorf("only %d results", len(results))
		}
	}
}

// goldenNamed is golden for a test without sub-tests.
func (s *stage) goldenNamed(v setting, scenarios string) []probe.Result {
	s.t.Helper()
	var results []probe.Result
	s.t.Run("native"+v.String(), func(t *testing.T) {
		sub := *s
		sub.t = t
		results = sub.golden(v, scenarios)
	})
	return results
}
