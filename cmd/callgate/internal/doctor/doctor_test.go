package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain fails when a test leaves a descriptor behind.
func TestMain(m *testing.M) {
	before := descriptorList()
	code := m.Run()
	for fd, target := range descriptorList() {
		if before[fd] != target {
			fmt.Fprintf(os.Stderr, "leaked descriptor %s: %s\n", fd, target)
			code = 1
		}
	}
	os.Exit(code)
}

func descriptorList() map[string]string {
	// Go's poller has descriptors of its own, made with the first pipe.
	if r, w, err := os.Pipe(); err == nil {
		_ = r.Close()
		_ = w.Close()
	}
	open := make(map[string]string)
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		panic(err)
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open[e.Name()] = target
		}
	}
	return open
}

// filtered counts the threads by what they are not to be left with.
func filtered(tb testing.TB) map[string]int {
	tb.Helper()
	found := make(map[string]int)
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil {
		tb.Fatal(err)
	}
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // gone
		}
		for line := range strings.Lines(string(text)) {
			if name, _, _ := strings.Cut(line, ":"); name == "Seccomp" || name == "NoNewPrivs" {
				found[strings.TrimSpace(line)]++
			}
		}
	}
	return found
}

func TestNothingStays(t *testing.T) {
	Examine(t.Context()) // threads and descriptors of the runtime's own
	before, files := filtered(t), descriptorList()
	for range 3 {
		Examine(t.Context())
	}
	for fd, target := range descriptorList() {
		if files[fd] != target {
			t.Errorf("leaked descriptor %s: %s", fd, target)
		}
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); !errors.Is(err, unix.ECHILD) {
		t.Errorf("wait4: %d, %v: a process is left", pid, err)
	}
	// A thread ends a little after its goroutine.
	for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		changed := ""
		for line, n := range filtered(t) {
			if before[line] == 0 && n > 0 {
				changed += fmt.Sprintf("%d threads with %q\n", n, line)
			}
		}
		if changed == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(changed)
		}
	}
}

func TestOnThreadIsNotTheMainOne(t *testing.T) {
	for range 100 {
		var tid int
		onThread(func() { tid = unix.Gettid() })
		if tid == 0 || tid == os.Getpid() {
			t.Fatalf("ran on thread %d of process %d", tid, os.Getpid())
		}
	}
}

func TestItems(t *testing.T) {
	items := Examine(t.Context())
	seen := make(map[string]bool)
	for _, item := range items {
		if item.ID == "" || item.Title == "" || seen[item.ID] {
			t.Errorf("item %+v: no id, no title, or the id is not its own", item)
		}
		seen[item.ID] = true
		if (item.State == OK) != (item.Cost == "") && item.ID != "kernel" {
			t.Errorf("item %q is %s and costs %q", item.ID, item.State, item.Cost)
		}
	}
	if seen["capability.sys_resource"] {
		t.Error("CAP_SYS_RESOURCE is not to be asked for")
	}
}

func TestDoneContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, item := range Examine(ctx) {
		if item.ID == "abi.i386" && item.State != Unknown {
			t.Errorf("%s: %s, want unknown", item.ID, item.State)
		}
	}
}

func sample() []Item {
	return []Item{
		{ID: "a", Title: "short", State: OK},
		{ID: "b", Title: "a longer title", State: OK, Found: "1.2"},
		{ID: "c", Title: "third", State: Missing, Found: "two\n\tlines", Cost: "time"},
		{ID: "d", Title: "fourth", State: Missing, Required: true, Cost: "all"},
		{ID: "e", Title: "fifth", Required: true, Cost: "<nobody knows>"},
	}
}

func TestText(t *testing.T) {
	var out bytes.Buffer
	if err := Text(&out, sample()); err != nil {
		t.Fatal(err)
	}
	want := `ok       short
ok       a longer title  1.2
missing  third           two lines; costs: time
missing  fourth          REQUIRED; costs: all
unknown  fifth           costs: <nobody knows>
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", &out, want)
	}
}

func TestJSON(t *testing.T) {
	var out bytes.Buffer
	if err := JSON(&out, sample()); err != nil {
		t.Fatal(err)
	}
	var list []map[string]any
	if err := json.Unmarshal(out.Bytes(), &list); err != nil {
		t.Fatal(err)
	}
	var states []any
	for _, object := range list {
		states = append(states, object["state"])
	}
	if want := []any{"ok", "ok", "missing", "missing", "unknown"}; !slices.Equal(states, want) {
		t.Errorf("states %v, want %v", states, want)
	}
	if list[3]["required"] != true || list[0]["required"] != false {
		t.Errorf("required: %v", list)
	}
	if !strings.Contains(out.String(), "<nobody knows>") {
		t.Error("text is escaped as if for HTML")
	}
}

func TestHopeless(t *testing.T) {
	items := sample()
	if err := Hopeless(items); err == nil || !strings.Contains(err.Error(), "fourth") {
		t.Errorf("got %v, want an error that names what is missing", err)
	}
	if err := Hopeless(slices.Delete(items, 3, 4)); err != nil {
		t.Errorf("got %v: what is unknown is not missing", err)
	}
}

func TestTell(t *testing.T) {
	for _, test := range []struct {
		err  error
		want State
	}{
		{nil, OK},
		{os.NewSyscallError("x", unix.ENOSYS), Missing},
		{os.NewSyscallError("x", unix.EPERM), Unknown},
	} {
		if f := tell(test.err, unix.EINVAL, unix.ENOSYS); f.state != test.want {
			t.Errorf("%v: %s, want %s", test.err, f.state, test.want)
		}
	}
}

func TestNotifies(t *testing.T) {
	for text, want := range map[string]bool{
		`{"linux":{"seccomp":{"enabled":true,"actions":["SCMP_ACT_ALLOW","SCMP_ACT_NOTIFY"]}}}`: true,
		`{"linux":{"seccomp":{"enabled":false,"actions":["SCMP_ACT_NOTIFY"]}}}`:                 false,
		`{"linux":{"seccomp":{"enabled":true,"actions":["SCMP_ACT_ALLOW"]}}}`:                   false,
		`{}`: false,
	} {
		if got, err := notifies([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", text, got, err, want)
		}
	}
	if _, err := notifies([]byte("no JSON")); err == nil {
		t.Error("want an error")
	}
}
