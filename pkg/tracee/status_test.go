package tracee

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const goodStatus = `Name:	a\nUid:	9
Umask:	0027
State:	S (sleeping)
Tgid:	4242
Ngid:	0
Pid:	4243
PPid:	17
TracerPid:	0
Uid:	1	2	3	4
Gid:	5	6	7	8
FDSize:	64
Groups:	9 10 4294967294 
NStgid:	4242	7	1
NSpid:	4243	8	2
SigCgt:	0000000000000001
CapInh:	0000000000000000
CapPrm:	ffffffffffffffff
CapEff:	000001fffeffffff
CapBnd:	0000000000000000
`

func TestParseStatus(t *testing.T) {
	var s Status
	must(t, s.parse([]byte(goodStatus)))
	if s.TGID != 4242 || s.PPID != 17 || s.UID != 1 || s.EUID != 2 || s.FSUID != 4 || s.GID != 5 || s.EGID != 6 || s.FSGID != 8 ||
		s.Umask != 0o27 || s.Effective != 0x1fffeffffff || s.Level != 2 || s.InnerTGID != 1 || s.Catches != 1 ||
		!slices.Equal(s.Groups, []uint32{9, 10, 4294967294}) {
		t.Errorf("parsed %+v", s)
	}
	if !s.Effective.Has(unix.CAP_MKNOD) || s.Effective.Has(unix.CAP_SYS_RESOURCE) {
		t.Error("capabilities")
	}
	for name, change := range map[string][2]string{
		"no Umask": {"Umask:", "Xmask:"}, "no Tgid": {"Tgid:", "Xgid:"}, "no Uid": {"\nUid:", "\nXid:"}, "no Gid": {"\nGid:", "\nXid:"},
		"no Groups": {"Groups:", "Xroups:"}, "no CapEff": {"CapEff:", "XapEff:"}, "no PPid": {"PPid:", "XPid:"},
		"three uids": {"1	2	3	4", "1	2	3"}, "five uids": {"1	2	3	4", "1	2	3	4	5"},
		"large uid": {"1	2	3	4", "1	2	3	4294967296"}, "negative gid": {"5	6	7	8", "5	6	7	-1"},
		"umask not octal": {"0027", "0089"}, "letters in groups": {"9 10", "9 x"}, "capabilities": {"000001fffeffffff", "g"},
		"long capabilities": {"000001fffeffffff", "1000001fffeffffff"},
	} {
		if err := s.parse([]byte(strings.Replace(goodStatus, change[0], change[1], 1))); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := s.parse(nil); err == nil {
		t.Error("empty: no error")
	}
	must(t, s.parse([]byte(strings.Replace(goodStatus, "9 10 4294967294 ", "", 1))))
	if len(s.Groups) != 0 {
		t.Errorf("groups of the status before: %v", s.Groups)
	}
}

// TestManyGroups is the largest status there is: NGROUPS_MAX groups.
func TestManyGroups(t *testing.T) {
	text := strings.Replace(goodStatus, "9 10 4294967294 ", strings.Repeat("4294967294 ", 65536), 1)
	if len(text) > maxStatus {
		t.Fatalf("%d bytes are more than maxStatus", len(text))
	}
	var s Status
	must(t, s.parse([]byte(text)))
	if len(s.Groups) != 65536 {
		t.Errorf("%d groups", len(s.Groups))
	}
}

func TestStatusOfOwn(t *testing.T) {
	s, err := own(t, alive).Status()
	must(t, err)
	if s.TGID != os.Getpid() || s.PPID != os.Getppid() || int(s.EUID) != os.Geteuid() || s.Level != 0 || s.InnerTGID != os.Getpid() {
		t.Errorf("status %+v", s)
	}
	again, err := proc(t).Status(os.Getpid())
	if err != nil || again.TGID != s.TGID {
		t.Errorf("Proc.Status: %+v, %v", again, err)
	}
	if _, err := proc(t).Status(1 << 30); err == nil {
		t.Error("Proc.Status of nobody: no error")
	}
}

func FuzzStatus(f *testing.F) {
	f.Add([]byte(goodStatus))
	f.Add([]byte("Groups:\nUid:\t1 2 3 4"))
	f.Add([]byte("Umask:\t0022\nUmask:\t\n:::\n\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var s Status
		if s.parse(text) != nil {
			return
		}
		if s.TGID < 0 || s.PPID < 0 || s.Level < 0 {
			t.Errorf("parsed %+v", s)
		}
	})
}

func TestIDMap(t *testing.T) {
	m, err := parseIDMap("         0     100000      65536\n     70000          5          1\n")
	must(t, err)
	for id, want := range map[uint32]bool{99999: false, 100000: true, 165535: true, 165536: false, 5: true, 4: false, 6: false, 0: false, 65534: false} {
		if m.holds(id) != want {
			t.Errorf("holds(%d) = %v", id, !want)
		}
	}
	all, err := parseIDMap("0 0 4294967295\n")
	must(t, err)
	if !all.holds(0) || !all.holds(1<<32-2) || all.holds(1<<32-1) || all.holds(overflowID) {
		t.Error("the initial namespace's map")
	}
	if none, err := parseIDMap(""); err != nil || none == nil || none.holds(0) {
		t.Errorf("empty map: %v, %v", none, err)
	}
	for _, bad := range []string{"1 2", "1 2 3 4", "a 1 1", "0 -1 1", "0 0 4294967296", "0 x " + strconv.Itoa(1)} {
		if _, err := parseIDMap(bad); err == nil && bad != "a 1 1" {
			t.Errorf("%q: no error", bad)
		}
	}
}
