package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

const mainEnv = "CALLGATE_TEST_MAIN"

// TestMain is callgate where a test started it, or callgate run did.
func TestMain(m *testing.M) {
	if os.Getenv(mainEnv) != "" || len(os.Args) > 1 && os.Args[1] == initName {
		main()
	}
	notifytest.Main(m)
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

const patience = 9 * time.Second

// callgate is the command, with an environment of its own.
func callgate(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Env = []string{mainEnv + "=1", "PATH=" + os.Getenv("PATH"), "TMPDIR=" + t.TempDir(), "GORACE=exitcode=66 atexit_sleep_ms=0"}
	return cmd
}

// ran is what came of a command.
type ran struct {
	out, err string
	status   int
}

func try(t *testing.T, cmd *exec.Cmd) ran {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return ran{out.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func callgateRan(t *testing.T, args ...string) ran {
	t.Helper()
	return try(t, callgate(t, args...))
}

// fine fails the test unless the command ended well and kept its peace.
func (r ran) fine(t *testing.T) string {
	t.Helper()
	if r.status != 0 || r.err != "" {
		t.Fatalf("status %d, stderr:\n%s", r.status, r.err)
	}
	return r.out
}

// fails checks that one line says what went wrong and where.
func (r ran) fails(t *testing.T, want ...string) {
	t.Helper()
	if r.status != 1 {
		t.Errorf("status %d, want 1", r.status)
	}
	if r.out != "" {
		t.Errorf("standard output: %s", r.out)
	}
	if !strings.HasPrefix(r.err, "callgate: ") || strings.Count(r.err, "\n") != 1 {
		t.Errorf("want one line that begins with the program's name, got\n%s", r.err)
	}
	for _, w := range want {
		if !strings.Contains(r.err, w) {
			t.Errorf("error is %q, want %q in it", r.err, w)
		}
	}
}

// file makes a file of the test's.
func file(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(content), 0o600))
	return path
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{[]string{"--nope"}, "unknown flag: --nope"},
		{[]string{"nope"}, `unknown command "nope"`},
		{[]string{"agent", "--nope"}, "unknown flag: --nope"},
		{[]string{"agent", "more"}, `unknown command "more"`},
		{[]string{"agent", "--log-level", "loud"}, `--log-level "loud": want error, warn, info or debug`},
		{[]string{"agent", "--log-format", "xml"}, `--log-format "xml": want text or json`},
		{[]string{"check"}, "accepts 1 arg(s), received 0"},
		{[]string{"profile", "--format", "yaml"}, `--format "yaml": want`},
		{[]string{"run"}, "requires at least 1 arg(s)"},
		{[]string{"run", "--log-level", "loud", "--", "true"}, `--log-level "loud"`},
		{[]string{"version", "more"}, `unknown command "more"`},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			if test.args[0] == "run" {
				notifytest.NeedRoot(t)
			}
			callgateRan(t, test.args...).fails(t, test.want)
		})
	}
}

func TestHelp(t *testing.T) {
	out := callgateRan(t, "--help").fine(t)
	for _, name := range []string{"agent", "run", "profile", "check", "ps", "trace", "doctor", "version"} {
		if !strings.Contains(out, "\n  "+name+" ") {
			t.Errorf("help does not list %s:\n%s", name, out)
		}
	}
	if strings.Contains(out, initName) {
		t.Errorf("help lists %s:\n%s", initName, out)
	}
}

func TestVersion(t *testing.T) {
	if out := callgateRan(t, "version").fine(t); !strings.HasPrefix(out, "callgate dev") || strings.Count(out, "\n") != 1 {
		t.Errorf("version: %q", out)
	}
}

func TestCheck(t *testing.T) {
	good := file(t, "good.yaml", "profiles:\n  default:\n    mknod:\n      allow: [\"c 1:3\"]\n")
	if out := callgateRan(t, "check", good).fine(t); out != good+": ok\n" {
		t.Errorf("check: %q", out)
	}
	bad := file(t, "bad.yaml", "profiles:\n  default:\n    mknood: {}\n")
	callgateRan(t, "check", bad).fails(t, bad+":3:", "profiles.default.mknood", "mknod")
	twice := file(t, "twice.yaml", "profilse: {}\nallowUids: [root]\n")
	if r := callgateRan(t, "check", twice); r.status != 1 || strings.Count(r.err, "callgate: "+twice+":") != 2 {
		t.Errorf("two mistakes: status %d\n%s", r.status, r.err)
	}
	callgateRan(t, "check", "/nowhere/c.yaml").fails(t, "/nowhere/c.yaml", "no such file")
	callgateRan(t, "check", t.TempDir()).fails(t, "is a directory")
}

func TestPSWithoutAgent(t *testing.T) {
	path := filepath.Join(t.TempDir(), "control.sock")
	callgateRan(t, "ps", "--control", path).fails(t, "ask the agent at "+path, "no such file or directory")
}
