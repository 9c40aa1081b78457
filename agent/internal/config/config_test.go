package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/callgate/callgate/emulators"
)

const good = `# /etc/callgate/config.yaml
allowUids: [0, 1000]
profiles:
  default:
    mknod:
      allow: ["c 1:3", "c 1:5", 'b 7:0', c 10:200]
    plain:
  builder:
    mount:
      allow:
        - type: ext4
          source: ["b 7:*"]
          options: [noatime, "data=*"]
          shift: true
          depth: 0x2
          ratio: 1.5
          wait: 1m30s
          env: {A: x, "b c": "1"}
        - {type: "4"}
      via: {program: /usr/bin/fuse}
    mknod: {}
  empty:
select:
  - {metadata: "builder", profile: builder}
  - {annotation: "callgate.profile=a=b", uid: 1000, profile: empty}
limits:
  callTimeout: 1m
  workersPerContainer: 8
`

func TestGood(t *testing.T) {
	for name, text := range map[string]string{
		"unix": good,
		"bom":  "\ufeff" + good,
		"dos":  strings.ReplaceAll(good, "\n", "\r\n"),
	} {
		t.Run(name, func(t *testing.T) { checkGood(t, mustParse(t, text)) })
	}
}

func checkGood(t *testing.T, c *Config) {
	if want := []uint32{0, 1000}; !slices.Equal(c.AllowUIDs, want) {
		t.Errorf("uids: have %v, want %v", c.AllowUIDs, want)
	}
	wantLimits := DefaultLimits()
	wantLimits.CallTimeout, wantLimits.WorkersPerContainer = time.Minute, 8
	if c.Limits != wantLimits {
		t.Errorf("limits: have %+v, want %+v", c.Limits, wantLimits)
	}
	kinds := func(profile string) (names []string) {
		for _, k := range c.Profiles[profile].Kinds() {
			names = append(names, k.Name)
		}
		return names
	}
	for profile, want := range map[string][]string{
		"default": {"mknod", "plain"}, "builder": {"mknod", "mount"}, "empty": nil,
	} {
		if have := kinds(profile); !slices.Equal(have, want) {
			t.Errorf("profile %s: have %v, want %v", profile, have, want)
		}
	}
	rules := policyOf[fakeMknod](t, c.Profiles["default"], "mknod").Allow
	if want := []fakeRule{{"c 1:3"}, {"c 1:5"}, {"b 7:0"}, {"c 10:200"}}; !slices.Equal(rules, want) {
		t.Errorf("mknod: have %v, want %v", rules, want)
	}
	if rules := policyOf[fakeMknod](t, c.Profiles["builder"], "mknod").Allow; !slices.Equal(rules, []fakeRule{{"built-in"}}) {
		t.Errorf("mknod: {}: have %v, want its default", rules)
	}
	mount := policyOf[fakeMount](t, c.Profiles["builder"], "mount")
	first := mount.Allow[0]
	if first.Type != "ext4" || !slices.Equal(first.Options, []string{"noatime", "data=*"}) || first.Shift == nil || !*first.Shift ||
		first.Depth != 2 || first.Ratio != 1.5 || first.Wait != 90*time.Second || !reflect.DeepEqual(first.Env, map[string]string{"A": "x", "b c": "1"}) {
		t.Errorf("mount: have %+v", first)
	}
	if mount.Allow[1].Shift != nil || mount.Allow[1].Type != "4" || mount.Via.Program != "/usr/bin/fuse" {
		t.Errorf("mount: have %+v", mount)
	}
}

func TestEmptyFileTurnsNothingOn(t *testing.T) {
	for _, text := range []string{"", "\n", "# only a comment\n", "---\n", "{}\n", "profiles:\n", "null\n", "profiles: {default: }\n"} {
		c := mustParse(t, text)
		if p := c.ProfileFor(Registration{}); p == nil || len(p.Policies) != 0 || p.Name != "default" {
			t.Errorf("%q: have %+v", text, p)
		}
		if !slices.Equal(c.AllowUIDs, []uint32{0}) || c.Limits != DefaultLimits() {
			t.Errorf("%q: have %+v", text, c)
		}
	}
}

func TestRootMayAlwaysRegister(t *testing.T) {
	c := mustParse(t, "allowUids: [1000]\n")
	for uid, want := range map[uint32]bool{0: true, 1000: true, 1001: false} {
		if have := c.MayRegister(uid); have != want {
			t.Errorf("uid %d: have %v", uid, have)
		}
	}
	if !slices.Contains(c.AllowUIDs, 0) {
		t.Errorf("have %v", c.AllowUIDs)
	}
}

func TestDefault(t *testing.T) {
	c, err := Default(fakeKinds())
	if err != nil {
		t.Fatal(err)
	}
	p := c.ProfileFor(Registration{Metadata: "anything"})
	if len(p.Policies) != 1 {
		t.Errorf("have %v, want mknod only", p.Kinds())
	}
	if rules := policyOf[fakeMknod](t, p, "mknod").Allow; !slices.Equal(rules, []fakeRule{{"built-in"}}) {
		t.Errorf("have %v", rules)
	}
	if c, err = Default(nil); err != nil || len(c.ProfileFor(Registration{}).Policies) != 0 {
		t.Errorf("without mknod: have %+v, %v", c, err)
	}
}

func TestOverlap(t *testing.T) {
	kinds := append(fakeKinds(), emulators.Kind{Name: "other", Syscalls: []string{"mount"}})
	for name, make := range map[string]func() (*Config, error){
		"parse":   func() (*Config, error) { return Parse("test.yaml", nil, kinds) },
		"default": func() (*Config, error) { return Default(kinds) },
	} {
		if _, err := make(); err == nil || !strings.Contains(err.Error(), `"mount" and "other" both claim mount`) {
			t.Errorf("%s: have %v", name, err)
		}
	}
}

func TestParseClosesWhatItTries(t *testing.T) {
	closed := 0
	kinds := []emulators.Kind{
		{Name: "a", New: func(emulators.Policy) (emulators.Emulator, error) { return fakeEmulator{closed: &closed}, nil }},
		{Name: "b", New: func(emulators.Policy) (emulators.Emulator, error) {
			if closed > 0 {
				return nil, errors.New("host is full")
			}
			return fakeEmulator{}, nil
		}},
	}
	if _, err := Parse("test.yaml", []byte("profiles: {default: {a: , b: }}\n"), kinds); err == nil || closed != 1 {
		t.Fatalf("have %v, %d closed", err, closed)
	}
	closed = 0
	p := &Profile{Name: "default", Policies: []KindPolicy{{Kind: kinds[0]}, {Kind: kinds[1]}}}
	kinds[1].New = func(emulators.Policy) (emulators.Emulator, error) { return nil, errors.New("host is full") }
	p.Policies[1].Kind = kinds[1]
	_, err := p.Emulators()
	if err == nil || err.Error() != `make emulator b of profile "default": host is full` || closed != 1 {
		t.Errorf("have %v, %d closed", err, closed)
	}
}

func TestDecodeWantsAStruct(t *testing.T) {
	p := mustParse(t, "profiles: {default: {mknod: }}\n").Profiles["default"].Policies[0].Policy
	var nothing *fakeMknod
	for _, into := range []any{nil, fakeMknod{}, nothing, new(int)} {
		if err := p.Decode(into); err == nil {
			t.Errorf("%T: no error", into)
		}
	}
	var odd struct{ Allow chan int }
	p = mustParse(t, "profiles: {default: {mknod: {allow: []}}}\n").Profiles["default"].Policies[0].Policy
	if err := p.Decode(&odd); err == nil || !strings.Contains(err.Error(), "chan int") {
		t.Errorf("have %v", err)
	}
}

// TestConcurrentDecode is for the race detector: containers arrive at once.
func TestConcurrentDecode(t *testing.T) {
	c := mustParse(t, good)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.ProfileFor(Registration{Metadata: "builder"}).Emulators(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if c, err := Load(write("good.yaml", good), fakeKinds()); err != nil {
		t.Error(err)
	} else {
		checkGood(t, c)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	bad := write("bad.yaml", "a: 1\n")
	for _, tt := range []struct{ path, want string }{
		{dir, "is a directory, want a regular file"},
		{fifo, "want a regular file"},
		{"/dev/null", "want a regular file"},
		{write("large.yaml", strings.Repeat("#", maxBytes+1)), "larger than 1048576 bytes"},
		{bad, bad + ":1:1: a: unknown field"},
	} {
		if _, err := Load(tt.path, fakeKinds()); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.path) {
			t.Errorf("%s: have %v, want %s", tt.path, err, tt.want)
		}
	}
	if _, err := Load(filepath.Join(dir, "absent"), fakeKinds()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("absent: have %v", err)
	}
	if _, err := Load(write("full.yaml", strings.Repeat("#", maxBytes)), fakeKinds()); err != nil {
		t.Errorf("1 MiB: %v", err)
	}
}
