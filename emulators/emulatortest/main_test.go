package emulatortest

import (
	"fmt"
	"os"
	"testing"
)

// TestMain fails when a test leaves a descriptor behind.
func TestMain(m *testing.M) {
	before := descriptors()
	code := m.Run()
	for fd, target := range leaked(before) {
		fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
		code = 1
	}
	os.Exit(code)
}
