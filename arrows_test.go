// Package callgate_test holds what is true of the module as a whole.
package callgate_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/callgate/callgate/"

// layer is a part of the module and what of the module it may import: a
// package itself, or with a slash at its end all below it. The first layer
// whose name fits a package is the package's.
type layer struct {
	name string
	may  []string
}

// layers are DESIGN's section 2: cmd → agent → emulators/x → emulators →
// pkg/{tracee → pidfd, seccompnotify}; hooks → pkg. Tests of a package are in
// its layer.
func layers() []layer {
	return []layer{
		{"cmd/", []string{"cmd/", "agent", "emulators", "hooks/", "pkg/"}},
		{"agent", []string{"agent/", "emulators", "emulators/", "pkg/"}},
		{"agent/", []string{"agent/internal/", "emulators", "pkg/"}},
		{"emulators", []string{"emulators/emulatortest", "pkg/"}},
		{"emulators/emulatortest", []string{"emulators", "pkg/"}},
		// Never one another; themselves and what is inside them is allowed below.
		{"emulators/", []string{"emulators", "emulators/emulatortest", "pkg/"}},
		{"hooks/", []string{"hooks/", "pkg/"}},
		{"pkg/tracee", []string{"pkg/pidfd", "pkg/seccompnotify", "pkg/seccompnotify/notifytest"}},
		{"pkg/mnt", []string{"pkg/tracee", "pkg/seccompnotify/notifytest"}},
		{"pkg/", nil},
		{"bench", []string{"bench/", "agent", "emulators", "emulators/", "hooks/", "pkg/"}},
		// Black box: what it tests it starts.
		{"integration", []string{"integration/"}},
		{"integration/", []string{"integration/internal/"}},
	}
}

// libseccomp's Go package may be imported here only.
var libseccompUsers = map[string]bool{"agent/internal/systab": true, "hooks/filter": true}

// unsafeUsers outside of pkg/, with the reason.
var unsafeUsers = map[string]string{
	"bench": "its subject makes raw calls, without the runtime's book-keeping",
	// A number only: the address that a call's argument has.
	"emulators/emulatortest": "its caller's memory is its own",
	"hooks/filter":           "struct sock_fprog of seccomp(2), which is of no use to others",
	"integration":            "shares no code with what it tests",
}

// testHelpers are for tests, and for one another.
var testHelpers = map[string]bool{"emulators/emulatortest": true, "pkg/seccompnotify/notifytest": true}

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
	Error                              *struct{ Err string }
}

func (p goPackage) imports() []string {
	return append(append(p.Imports, p.TestImports...), p.XTestImports...)
}

func TestImports(t *testing.T) {
	for _, p := range goList(t) {
		if p.Error != nil {
			t.Errorf("%s: %s", p.ImportPath, p.Error.Err)
			continue
		}
		name := strings.TrimPrefix(p.ImportPath, module)
		if name+"/" == module {
			continue // this test
		}
		for _, to := range p.Imports {
			if testHelpers[strings.TrimPrefix(to, module)] && !testHelpers[name] {
				t.Errorf("%s imports %s: which is for tests", name, to)
			}
		}
		for _, to := range p.imports() {
			if why := forbidden(name, to); why != "" {
				t.Errorf("%s imports %s: %s", name, to, why)
			}
		}
	}
}

// forbidden says why a package may not import another; "" if it may.
func forbidden(from, to string) string {
	switch {
	case to == "unsafe":
		if unsafeUsers[from] == "" && !strings.HasPrefix(from, "pkg/") {
			return "unsafe is for pkg/"
		}
	case strings.HasPrefix(to, "github.com/seccomp/libseccomp-golang"):
		if !libseccompUsers[from] {
			return "libseccomp is for names, tables and building filters"
		}
	case strings.HasPrefix(to, module):
		return against(from, strings.TrimPrefix(to, module))
	}
	return ""
}

func against(from, to string) string {
	deep := strings.Contains(from, "/")
	if to == from || deep && strings.HasPrefix(to, from+"/") {
		return "" // its own test package, or what is inside of it
	}
	for _, l := range layers() {
		if !fits(from, l.name) {
			continue
		}
		for _, may := range l.may {
			if fits(to, may) {
				return ""
			}
		}
		// An inner package of an emulator or a library may use its siblings.
		if own := path.Dir(from); strings.Count(from, "/") >= 2 && fits(to, own+"/") {
			return ""
		}
		return "against the arrows of DESIGN's section 2"
	}
	return "package is in no layer: add it to layers"
}

func fits(name, pattern string) bool {
	return name == pattern || strings.HasSuffix(pattern, "/") && strings.HasPrefix(name, pattern)
}

func goList(t *testing.T) []goPackage {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports,Error", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &stderr)
	}
	var list []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 10 {
		t.Fatalf("go list found %d packages", len(list))
	}
	return list
}

// TestForbidden: the rules refuse what they are there to refuse.
func TestForbidden(t *testing.T) {
	for _, test := range []struct {
		from, to string
		ok       bool
	}{
		{"cmd/callgate", module + "agent", true},
		{"cmd/callgate", module + "cmd/callgate/internal/doctor", true},
		{"cmd/callgate", module + "agent/internal/dispatch", false},
		{"cmd/callgate", module + "emulators/mknod", false},
		{"agent", module + "emulators/mknod", true},
		{"agent", module + "agent/internal/dispatch", true},
		{"agent", module + "hooks/filter", false},
		{"agent/internal/dispatch", module + "agent/internal/metrics", true},
		{"agent/internal/dispatch", module + "agent", false},
		{"agent/internal/dispatch", module + "emulators/mknod", false},
		{"emulators", module + "emulators/mknod", false},
		{"emulators", module + "pkg/tracee", true},
		{"emulators/mknod", module + "emulators", true},
		{"emulators/mknod", module + "emulators/mount", false},
		{"emulators/mknod", module + "emulators/emulatortest", true},
		{"emulators/mount", module + "emulators/mount/fuse", true},
		{"emulators/mount/fuse", module + "emulators/mount/options", true},
		{"emulators/mount/fuse", module + "emulators/mknod", false},
		{"emulators/mknod", module + "agent/internal/dispatch", false},
		{"emulators/mknod", module + "agent", false},
		{"hooks/profile", module + "hooks/internal/bpfsim", true},
		{"hooks/profile", module + "agent", false},
		{"pkg/tracee", module + "pkg/pidfd", true},
		{"pkg/pidfd", module + "pkg/tracee", false},
		{"pkg/pidfd", module + "pkg/seccompnotify", false},
		{"pkg/seccompnotify", module + "pkg/seccompnotify/notifytest", true},
		{"pkg/tracee", module + "emulators", false},
		{"integration", module + "integration/internal/probe", true},
		{"integration/internal/engine", module + "integration/internal/need", true},
		{"integration", module + "agent", false},
		{"somewhere", module + "agent", false},
		{"agent/internal/dispatch", "unsafe", false},
		{"pkg/tracee", "unsafe", true},
		{"hooks/filter", "unsafe", true},
		{"agent/internal/systab", "github.com/seccomp/libseccomp-golang", true},
		{"agent/internal/dispatch", "github.com/seccomp/libseccomp-golang", false},
		{"pkg/pidfd", "golang.org/x/sys/unix", true},
	} {
		if why := forbidden(test.from, test.to); (why == "") != test.ok {
			t.Errorf("%s imports %s: %q, want allowed %v", test.from, test.to, why, test.ok)
		}
	}
}
