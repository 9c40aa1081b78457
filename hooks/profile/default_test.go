package profile

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// allNames gives the names in any rule of a profile, whatever its conditions.
func allNames(t *testing.T, base []byte) map[string]bool {
	t.Helper()
	doc, err := parse(base)
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, r := range doc.Syscalls {
		for _, n := range r.Names {
			names[n] = true
		}
	}
	return names
}

// TestDefaultHasNoTypo: runtimes ignore unknown names silently.
func TestDefaultHasNoTypo(t *testing.T) {
	known := allNames(t, stock(t, "docker.json"))
	for n := range allNames(t, stock(t, "podman.json")) {
		known[n] = true
	}
	for n := range allNames(t, Default()) {
		if !known[n] {
			t.Errorf("%q is in neither stock profile", n)
		}
	}
	seen := make(map[string]bool)
	for _, r := range compile(t, nil, Options{}).Seccomp.Syscalls {
		for _, n := range r.Names {
			if len(r.Args) == 0 && seen[n] {
				t.Errorf("%q has two unconditional rules", n)
			}
			seen[n] = true
		}
	}
}

// TestDefaultAllowsWhatDockerDoes keeps the built-in profile from falling behind: what Docker's allows without conditions on arguments, ours does.
func TestDefaultAllowsWhatDockerDoes(t *testing.T) {
	ours := make(map[string]specs.LinuxSeccompAction)
	for _, r := range compile(t, nil, Options{}).Seccomp.Syscalls {
		for _, n := range r.Names {
			ours[n] = r.Action
		}
	}
	for _, r := range compile(t, stock(t, "docker.json"), Options{}).Seccomp.Syscalls {
		for _, n := range r.Names {
			if r.Action == specs.ActAllow && ours[n] != specs.ActAllow && len(r.Args) == 0 {
				t.Errorf("Docker allows %s", n)
			}
		}
	}
}

func TestDefaultSemantics(t *testing.T) {
	prog := build(t, compile(t, nil, Options{Emulators: []string{"mknod"}}).Seccomp)
	a := abis()[0]
	errno := func(e unix.Errno) uint32 { return retErrno | uint32(e) }
	for name, c := range map[string]struct {
		nr   uint32
		args []uint64
		want uint32
	}{
		"unknown":          {999, nil, errno(unix.ENOSYS)},
		"io_uring_setup":   {425, nil, errno(unix.ENOSYS)},
		"kexec_load":       {246, nil, errno(unix.EPERM)},
		"bpf":              {321, nil, errno(unix.EPERM)},
		"clone3":           {435, nil, retAllow},
		"unshare":          {272, nil, retAllow},
		"AF_INET":          {41, []uint64{unix.AF_INET}, retAllow},
		"AF_INET, garbage": {41, []uint64{1<<32 | unix.AF_INET}, retAllow},
		"AF_ALG":           {41, []uint64{unix.AF_ALG}, errno(unix.EAFNOSUPPORT)},
		"AF_VSOCK":         {41, []uint64{1<<32 | unix.AF_VSOCK}, errno(unix.EAFNOSUPPORT)},
		"personality":      {135, []uint64{0xffffffff}, retAllow},
		"ADDR_NO_RANDOM":   {135, []uint64{0x40000}, errno(unix.ENOSYS)},
	} {
		if got := prog.run(t, a, c.nr, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", name, got, c.want)
		}
	}
	if !slices.Equal(Emulators(), []string{"mknod", "mount"}) {
		t.Errorf("emulators: %q", Emulators())
	}
}
