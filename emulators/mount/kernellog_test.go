package mount

import (
	"testing"

	"github.com/callgate/callgate/pkg/seccompnotify/notifytest"
)

func TestMessage(t *testing.T) {
	for record, want := range map[string]string{
		"3,1234,567,-;EXT4-fs (loop1): bad geometry\n":                               "EXT4-fs (loop1): bad geometry",
		"3,1234,567,-;EXT4-fs (loop1): bad; worse\n SUBSYSTEM=block\n DEVICE=b7:1\n": "EXT4-fs (loop1): bad; worse",
		"6,1,2,c;\n":    "",
		"6,1,2,-;text":  "text",
		"no semicolon":  "",
		"":              "",
		"6,1,2,-;\nA=B": "",
	} {
		if got := message(record); got != want {
			t.Errorf("%q: %q, want %q", record, got, want)
		}
	}
}

// TestUnescape: what the kernel escapes is text again, on one line, and what is
// no escape stays.
func TestUnescape(t *testing.T) {
	for text, want := range map[string]string{
		`plain`: "plain", ``: "", `two\x0alines`: "two lines", `a\x5cx41`: `a\x41`, `\xc3\xa4`: "ä", `end\x4`: `end\x4`, `end\x`: `end\x`, `\xzz`: `\xzz`, `\x+1`: `\x+1`, `\x\x41`: `\xA`,
	} {
		if got := unescape(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestMentions(t *testing.T) {
	for _, c := range []struct {
		text, device string
		want         bool
	}{
		{"EXT4-fs (loop1): x", "loop1", true},
		{"EXT4-fs (loop10): x", "loop1", false},
		{"EXT4-fs (loop10): x, loop1: y", "loop1", true},
		{"EXT4-fs (loop10): x, loop11", "loop1", false},
		{"loop1", "loop1", true},
		{"at loop1", "loop1", true},
		{"at loop1,", "loop1", true},
		{"loop1loop1", "loop1", true}, // the second
		{"XFS (sda1): x", "sda", false},
		{"XFS (sda): x", "sda", true},
		{"XFS (sdaa): x", "sda", false},
		{"", "sda", false},
		{"nothing", "sda", false},
		{"BTRFS error (device dm-0): x", "dm-0", true},
		{"BTRFS error (device dm-01): x", "dm-0", false},
	} {
		if got := mentions(c.text, c.device); got != c.want {
			t.Errorf("%q mentions %q: %v", c.text, c.device, got)
		}
	}
}

func TestNoKernelLog(t *testing.T) {
	var logs kernelLogs
	var none *kernelLog
	if none.since() != "" {
		t.Error("no log says something")
	}
	logs.end(none)
	l := logs.begin(func() string { return "" })
	if l.since() != "" {
		t.Error("a log of no device says something")
	}
	logs.end(l)
	logs.close()
}

// TestKernelLogs: descriptors are used again, from now on, a few are kept, and
// none in the end.
func TestKernelLogs(t *testing.T) {
	notifytest.NoLeak(t)
	var logs kernelLogs
	defer logs.close()
	var begun []*kernelLog
	for range maxFreeLogs + 2 {
		l := logs.begin(func() string { return "loop0" })
		if l == nil {
			t.Skip("/dev/kmsg is not to be read")
		}
		begun = append(begun, l)
	}
	kept := make(map[int]bool)
	for i, l := range begun {
		kept[l.fd.FD()] = i < maxFreeLogs
		logs.end(l)
	}
	if len(logs.free) != maxFreeLogs {
		t.Errorf("%d descriptors are kept", len(logs.free))
	}
	again := logs.begin(func() string { return "loop0" })
	if !kept[again.fd.FD()] || again.since() != "" {
		t.Errorf("descriptor %d, %q", again.fd.FD(), again.since())
	}
	logs.end(again)
}
