//go:build linux

package pidfd

import (
	"strconv"
	"strings"
	"testing"
)

const statusText = `Name:	a\nTgid:	7
Umask:	0022
State:	S (sleeping)
Tgid:	41
Ngid:	0
Pid:	42
PPid:	1
TracerPid:	0
Uid:	1	2	3	4
Gid:	5	6	7	4294967295
FDSize:	64
Groups:	1 2 3`

func TestParseStatus(t *testing.T) {
	want := Info{
		PID: 42, TGID: 41, PPID: 1,
		RUID: 1, EUID: 2, SUID: 3, FSUID: 4,
		RGID: 5, EGID: 6, SGID: 7, FSGID: 4294967295,
	}
	replace := func(old, new string) string { return strings.Replace(statusText, old, new, 1) }
	for _, tt := range []struct {
		name, text string
		ok         bool
	}{
		{"as the kernel writes it", statusText, true},
		{"empty", "", false},
		{"a line that is missing", replace("PPid:", "Ppid:"), false},
		{"a line that comes twice", replace("Ngid:\t0", "Pid:\t42"), false},
		{"cut within a line", replace("\nFDSize:\t64\nGroups:\t1 2 3", ""), false},
		{"too few ids", replace("1\t2\t3\t4", "1\t2\t3"), false},
		{"too many ids", replace("1\t2\t3\t4", "1\t2\t3\t4\t5"), false},
		{"too large", replace("4294967295", "4294967296"), false},
		{"negative", replace("Tgid:\t41", "Tgid:\t-1"), false},
		{"from outside our PID namespace", replace("Tgid:\t41", "Tgid:\t0"), false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseStatus([]byte(tt.text))
			if !tt.ok {
				wantErr(t, err, errStatus)
				return
			}
			must(t, err)
			if got != want {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add([]byte(statusText))
	f.Fuzz(func(t *testing.T, text []byte) {
		if info, err := parseStatus(text); err == nil && (info.PID == 0 || info.TGID == 0) {
			t.Errorf("accepted %q", text)
		}
	})
}

// statusField returns a hexadecimal field of a /proc/PID/status.
func statusField(t *testing.T, status []byte, key string) uint64 {
	t.Helper()
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, key+":"); ok {
			n, err := strconv.ParseUint(strings.TrimSpace(value), 16, 64)
			must(t, err)
			return n
		}
	}
	t.Fatalf("no %s in status", key)
	return 0
}
