package profile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func nativeArch() string { return runtime.GOARCH }

func TestNotifyRulesAreRecognisable(t *testing.T) {
	r := compile(t, nil, Options{Emulators: []string{"mknod"}})
	for name, index := range map[string]uint{"mknod": 1, "mknodat": 2} {
		var types []uint64
		for _, rule := range r.Seccomp.Syscalls {
			if !slices.Contains(rule.Names, name) {
				continue
			}
			if len(rule.Args) == 0 {
				t.Errorf("%s has an unconditional rule", name)
			}
			if a := rule.Args[0]; rule.Action == specs.ActNotify {
				if a.Index != index || a.Op != specs.OpMaskedEqual || a.Value != 61440 {
					t.Errorf("%s: NOTIFY on %+v", name, a)
				}
				types = append(types, a.ValueTwo)
			}
		}
		if !slices.Equal(types, []uint64{0x2000, 0x6000}) {
			t.Errorf("%s: NOTIFY on types %#x", name, types)
		}
	}
	if r.Seccomp.ListenerPath != DefaultListenerPath {
		t.Errorf("listenerPath is %q", r.Seccomp.ListenerPath)
	}
	if len(r.Warnings) > 0 {
		t.Errorf("warnings: %q", r.Warnings)
	}
}

func TestOutputIsStable(t *testing.T) {
	for _, name := range []string{"built-in", "docker", "podman", "allow all", "deny all", "one type"} {
		for _, emulators := range [][]string{nil, {"mknod"}, {"mount", "mknod"}} {
			t.Run(fmt.Sprint(name, emulators), func(t *testing.T) {
				opts := Options{Emulators: emulators, ListenerMetadata: "a<b"}
				first := mustJSON(t, compile(t, bases(t)[name].json, opts))
				slices.Reverse(opts.Emulators)
				if second := mustJSON(t, compile(t, bases(t)[name].json, opts)); !bytes.Equal(first, second) {
					t.Error("a second compilation differs")
				}
				again := compile(t, first, opts)
				if !bytes.Equal(first, mustJSON(t, again)) {
					t.Errorf("compiling the result differs:\n%s\n%s", first, mustJSON(t, again))
				}
				if name != "one type" && len(again.Warnings) > 0 {
					t.Errorf("compiling the result warns: %q", again.Warnings)
				}
				var parsed specs.LinuxSeccomp
				dec := json.NewDecoder(bytes.NewReader(first))
				dec.DisallowUnknownFields()
				if err := dec.Decode(&parsed); err != nil {
					t.Errorf("not a pure linux.seccomp: %v", err)
				}
			})
		}
	}
}

func TestConfigJSON(t *testing.T) {
	plain := mustJSON(t, compile(t, stock(t, "podman.json"), Options{}))
	config := fmt.Appendf(nil, `{"ociVersion": "1.0.2", "process": {}, "linux": {"namespaces": [], "seccomp": %s}}`, plain)
	if got := mustJSON(t, compile(t, config, Options{})); !bytes.Equal(got, plain) {
		t.Error("taken from a config.json it differs")
	}
}

func TestResolve(t *testing.T) {
	has := func(s *specs.LinuxSeccomp, name string) string {
		for _, r := range s.Syscalls {
			if slices.Contains(r.Names, name) {
				return strings.TrimPrefix(string(r.Action), "SCMP_ACT_")
			}
		}
		return "default"
	}
	for _, c := range []struct {
		base    string
		opts    Options
		syscall string
		want    string
	}{
		{"docker.json", Options{Arch: "amd64"}, "arch_prctl", "ALLOW"},
		{"docker.json", Options{Arch: "arm64"}, "arch_prctl", "default"},
		{"docker.json", Options{Arch: "arm64"}, "cacheflush", "ALLOW"},
		{"docker.json", Options{}, "mount", "default"},
		{"docker.json", Options{Capabilities: []string{"CAP_SYS_ADMIN"}}, "mount", "ALLOW"},
		{"docker.json", Options{Capabilities: []string{"sys_admin"}}, "mount", "ALLOW"},
		{"docker.json", Options{Capabilities: []string{"ALL"}}, "mount", "ALLOW"},
		{"docker.json", Options{}, "clone3", "ERRNO"},
		{"docker.json", Options{Capabilities: []string{"SYS_ADMIN"}}, "clone3", "ALLOW"},
		{"docker.json", Options{}, "ptrace", "ALLOW"}, // minKernel 4.8
		{"podman.json", Options{}, "chroot", "ALLOW"},
		{"podman.json", Options{}, "acct", "ERRNO"},
		{"podman.json", Options{}, "mount", "ALLOW"},
	} {
		r, err := Compile(stock(t, c.base), c.opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := has(r.Seccomp, c.syscall); got != c.want {
			t.Errorf("%s %+v: %s is %s, want %s", c.base, c.opts, c.syscall, got, c.want)
		}
	}
}

func TestResolveFields(t *testing.T) {
	base := `{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "ENOSYS", "syscalls": [
		{"name": "read", "action": "SCMP_ACT_ALLOW", "comment": "old form", "args": null, "includes": {}, "excludes": null},
		{"names": ["acct"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM"},
		{"names": ["bpf"], "action": "SCMP_ACT_ERRNO", "errno": "ENOSYS"},
		{"names": ["late"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "200.1"}},
		{"names": ["early"], "action": "SCMP_ACT_ALLOW", "excludes": {"minKernel": "3.0"}}]}`
	enosys, eperm := uint(38), uint(1)
	want := &specs.LinuxSeccomp{
		DefaultAction:   specs.ActErrno,
		DefaultErrnoRet: &enosys,
		Architectures:   []specs.Arch{specs.ArchAARCH64, specs.ArchARM},
		Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read"}, Action: specs.ActAllow},
			{Names: []string{"acct"}, Action: specs.ActErrno, ErrnoRet: &eperm},
		},
	}
	r, err := Compile([]byte(base), Options{Arch: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r.Seccomp, want) {
		t.Errorf("got %+v\nwant %+v", r.Seccomp, want)
	}
}

func TestFlagsAndListener(t *testing.T) {
	base := []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"], "listenerMetadata": "old"}`)
	r := compile(t, base, Options{Emulators: []string{"mknod"}, WaitKillable: true, ListenerPath: "/a"})
	if !slices.Equal(r.Seccomp.Flags, []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, specs.LinuxSeccompFlagWaitKillableRecv}) || len(r.Warnings) != 1 {
		t.Errorf("flags %q, warnings %q", r.Seccomp.Flags, r.Warnings)
	}
	if r.Seccomp.ListenerPath != "/a" || r.Seccomp.ListenerMetadata != "old" {
		t.Errorf("listener %q %q", r.Seccomp.ListenerPath, r.Seccomp.ListenerMetadata)
	}
	r = compile(t, base, Options{WaitKillable: true, ListenerPath: "/a"})
	if len(r.Seccomp.Flags) != 2 || r.Seccomp.ListenerPath != "" || len(r.Warnings) != 0 {
		t.Errorf("without emulators: flags %q, listener %q, warnings %q", r.Seccomp.Flags, r.Seccomp.ListenerPath, r.Warnings)
	}
}

func TestWarnings(t *testing.T) {
	for name, c := range map[string]struct{ base, want string }{
		"conditional": {`{"names":["mknod"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":4096,"op":"SCMP_CMP_EQ"}]}`, "conditional rules for mknod"},
		"dropped":     {`{"names":["mknod"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":4096,"op":"SCMP_CMP_GE"}]}`, "dropped"},
		"foreign":     {`{"names":["bpf"],"action":"SCMP_ACT_NOTIFY"}`, `notifies ["bpf"]`},
	} {
		r := compile(t, []byte(`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [`+c.base+`]}`), Options{Emulators: []string{"mknod"}})
		if !strings.Contains(strings.Join(r.Warnings, "\n"), c.want) {
			t.Errorf("%s: warnings %q", name, r.Warnings)
		}
	}
}
