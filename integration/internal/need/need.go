// Package need says what a test cannot do without, in one place, so that a
// continuous integration machine can turn every skip into a failure.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// RequireAll is the environment variable that, set to "all", makes a missing
// requirement fail the test instead of skipping it.
const RequireAll = "CALLGATE_TEST_REQUIRE"

// Root skips the test unless it runs as root.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "needs root")
	}
}

// Program skips the test unless every named program is in $PATH.
func Program(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			Missing(t, "needs the program "+name)
		}
	}
}

// Missing skips the test for the given reason, or fails it under [RequireAll].
func Missing(t testing.TB, why string) {
	t.Helper()
	if os.Getenv(RequireAll) == "all" {
		t.Fatal(why)
	}
	t.Skip(why)
}
