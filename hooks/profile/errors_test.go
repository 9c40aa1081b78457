package profile

import (
	"bytes"
	"strings"
	"testing"
)

func TestErrors(t *testing.T) {
	rule := func(r string) string { return `{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [` + r + `]}` }
	mknod := Options{Emulators: []string{"mknod"}}
	for name, c := range map[string]struct {
		base string
		opts Options
		want string
	}{
		"empty":           {"", Options{}, "base profile: it is empty"},
		"white space":     {" \n", Options{}, "it is empty"},
		"not JSON":        {"seccomp", Options{}, "line 1, column 1: invalid character 's'"},
		"YAML":            {"\n\ndefaultAction: x", Options{}, "line 3, column 1: invalid character 'd'"},
		"comma":           {"{\n  \"defaultAction\": \"SCMP_ACT_ALLOW\",\n}", Options{}, "line 3, column 1: invalid character '}'"},
		"cut off":         {"{\n  \"defaultAction\": \"SC", Options{}, "line 2, column 23: unexpected end"},
		"trailing":        {"{\"defaultAction\": \"SCMP_ACT_ALLOW\"}\n x", Options{}, "something follows the profile"},
		"array":           {"[]", Options{}, "profile cannot be a JSON array"},
		"number":          {"{\n\"defaultAction\": 5}", Options{}, "line 2, column 19: defaultAction cannot be a JSON number"},
		"type inside":     {rule(`{"names": "read"}`), Options{}, "syscalls.names cannot be a JSON string"},
		"negative":        {rule(`{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": -1}]}`), Options{}, "args.index cannot be a JSON number -1"},
		"no fields":       {"{}", Options{}, "defaultAction is missing"},
		"null":            {"null", Options{}, "defaultAction is missing"},
		"no seccomp":      {`{"ociVersion": "1.0.2", "linux": {}}`, Options{}, "no linux.seccomp"},
		"no linux":        {`{"ociVersion": "1.0.2"}`, Options{}, "no linux.seccomp"},
		"default action":  {`{"defaultAction": "ALLOW"}`, Options{}, `defaultAction: unknown action "ALLOW"`},
		"default errno":   {`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrno": "EWHAT"}`, Options{}, `unknown errno "EWHAT"`},
		"action":          {rule(`{"names": ["read"], "action": "x"}`), Options{}, `syscalls[0]: action: unknown action "x"`},
		"no name":         {rule(`{"action": "SCMP_ACT_ALLOW"}`), Options{}, "syscalls[0]: names: "},
		"name and names":  {rule(`{"name": "a", "names": ["b"], "action": "SCMP_ACT_ALLOW"}`), Options{}, "name and names"},
		"operator":        {rule(`{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"op": "=="}]}`), Options{}, `syscalls[0]: args[0]: unknown operator "=="`},
		"index":           {rule(`{"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}`), Options{}, "index 6"},
		"errno":           {rule(`{"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096}`), Options{}, "errnoRet 4096"},
		"kernel":          {rule(`{"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8x"}}`), Options{}, `minKernel "4.8x"`},
		"architecture":    {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["x86"]}`, Options{}, `unknown architecture "x86"`},
		"both arch lists": {`{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"], "archMap": [{}]}`, Options{}, "architectures and archMap"},
		"notify write":    {rule(`{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}`), Options{}, "on write"},
		"notify all":      {`{"defaultAction": "SCMP_ACT_NOTIFY"}`, Options{}, "default action"},
		"listener":        {`{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}`, mknod, `listenerPath is already "/x"`},
		"relative":        {"", Options{Emulators: []string{"mknod"}, ListenerPath: "x"}, "not absolute"},
		"long":            {"", Options{Emulators: []string{"mknod"}, ListenerPath: "/" + strings.Repeat("x", 107)}, "longer than"},
		"emulator":        {"", Options{Emulators: []string{"mkond"}}, `unknown emulator "mkond", known are: mknod, mount`},
		"capability":      {"", Options{Capabilities: []string{"CAP_2"}}, `"CAP_2" is no capability`},
		"GOARCH":          {"", Options{Arch: "vax"}, `unknown architecture "vax"`},
		"lost refusal": {`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mknod"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 8192, "op": "SCMP_CMP_GE"}]}]}`,
			mknod, "cannot be combined with interception"},
	} {
		t.Run(name, func(t *testing.T) {
			base := []byte(c.base)
			if c.base == "" && name != "empty" {
				base = nil
			}
			_, err := Compile(base, c.opts)
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v, want one line with %q", err, c.want)
			}
		})
	}
}

func FuzzCompile(f *testing.F) {
	for _, b := range bases(f) {
		f.Add(b.json)
	}
	f.Add([]byte(`{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_LOG"}}}`))
	f.Fuzz(func(t *testing.T, base []byte) {
		opts := Options{Emulators: Emulators()}
		r, err := Compile(base, opts)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("error of several lines: %q", err)
			}
			return
		}
		first := mustJSON(t, r)
		again, err := Compile(first, opts)
		if err != nil {
			t.Fatalf("result is no base: %v\n%s", err, first)
		}
		for _, rule := range r.Seccomp.Syscalls {
			for _, name := range rule.Names {
				if name == "mknod" && len(rule.Args) == 0 {
					t.Fatalf("unconditional rule for mknod:\n%s", first)
				}
			}
		}
		if !bytes.Equal(first, mustJSON(t, again)) {
			t.Fatalf("not stable:\n%s\n%s", first, mustJSON(t, again))
		}
	})
}
