package mount

import "testing"

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
	l := openKernelLog("")
	if l != nil || l.since() != "" {
		t.Error("a log of no device")
	}
	l.close()
}
