package profile

import (
	"fmt"
	"os"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
	"github.com/callgate/callgate/hooks/internal/bpfsim"
)

const (
	retAllow  = 0x7fff0000 // SECCOMP_RET_ALLOW
	retNotify = 0x7fc00000 // SECCOMP_RET_USER_NOTIF
	retErrno  = 0x00050000 // SECCOMP_RET_ERRNO
)

// abi is one of the three that an x86-64 kernel takes, with the numbers of the calls under test.
type abi struct {
	name                  string
	arch                  uint32
	base                  uint32 // added to every number
	mknod, mknodat, mount uint32
	argBits               int // what libseccomp compares, and the kernel's registers have for i386
}

func abis() []abi {
	const x32 = 0x40000000
	return []abi{
		{"x86_64", unix.AUDIT_ARCH_X86_64, 0, 133, 259, 165, 64},
		{"i386", unix.AUDIT_ARCH_I386, 0, 14, 297, 21, 32},
		{"x32", unix.AUDIT_ARCH_X86_64, x32, x32 | 133, x32 | 259, x32 | 165, 32},
	}
}

func stock(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func compile(t testing.TB, base []byte, opts Options) *Result {
	t.Helper()
	opts.Arch = "amd64"
	r, err := Compile(base, opts)
	if err != nil {
		t.Fatalf("Compile: %v", err)
	}
	return r
}

type program []unix.SockFilter

func build(t testing.TB, s *specs.LinuxSeccomp) program {
	t.Helper()
	if native := "amd64"; nativeArch() != native {
		t.Skipf("the simulated programs are %s's; libseccomp here builds for %s first", native, nativeArch())
	}
	p, err := filter.Build(s)
	if err != nil {
		t.Fatalf("Build: %v", err)
	}
	return p
}

func (p program) run(t testing.TB, a abi, nr uint32, args ...uint64) uint32 {
	t.Helper()
	call := bpfsim.Call{Nr: nr, Arch: a.arch}
	copy(call.Args[:], args)
	ret, err := bpfsim.Run(p, call)
	if err != nil {
		t.Fatal(err)
	}
	return ret
}

// bases are profiles with all that a base can say about a call. exempts tells whether whiteouts stay with the kernel.
func bases(t testing.TB) map[string]struct {
	json    []byte
	exempts bool
} {
	type base = struct {
		json    []byte
		exempts bool
	}
	deny := func(rules string) []byte {
		return []byte(`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [` + rules + `]}`)
	}
	allow := func(rules string) []byte {
		return []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [` + rules + `]}`)
	}
	rule := func(action, args string) string {
		return fmt.Sprintf(`{"names": ["getpid", "mknod"], "action": "SCMP_ACT_%s", "args": [%s]}`, action, args)
	}
	arg := func(i int, op string, v, v2 uint64) string {
		return fmt.Sprintf(`{"index": %d, "op": "SCMP_CMP_%s", "value": %d, "valueTwo": %d}`, i, op, v, v2)
	}
	fifo, char := arg(1, "MASKED_EQ", 0xf000, 0x1000), arg(1, "MASKED_EQ", 0xf000, 0x2000)
	return map[string]base{
		"built-in":                    {nil, true},
		"docker":                      {stock(t, "docker.json"), true},
		"podman":                      {stock(t, "podman.json"), true},
		"allow all":                   {allow(""), true},
		"deny all":                    {deny(""), false},
		"allow":                       {deny(rule("ALLOW", "")), true},
		"refuse in so many words":     {deny(`{"names": ["mknod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}`), false},
		"refuse where all is allowed": {allow(rule("ERRNO", "")), false},
		"kill":                        {deny(rule("KILL", "")), false},
		"first of two":                {deny(rule("ERRNO", "") + "," + rule("ALLOW", "")), false},
		"first is the default":        {deny(`{"names":["mknod"],"action":"SCMP_ACT_ERRNO","errnoRet":38},` + rule("ALLOW", "")), true},
		"unconditional beats conditional": {
			deny(rule("ERRNO", char) + "," + rule("ALLOW", "")), true},
		"one type":           {deny(rule("ALLOW", fifo)), false},
		"one intercepted":    {deny(rule("ALLOW", char)), false},
		"some of each":       {deny(rule("ALLOW", arg(1, "MASKED_EQ", 0x2000, 0x2000))), false},
		"another argument":   {deny(rule("ALLOW", arg(2, "EQ", 5, 0))), false},
		"two arguments":      {deny(rule("ALLOW", fifo+","+arg(2, "EQ", 5, 0))), false},
		"one argument twice": {deny(rule("ALLOW", fifo+","+arg(1, "MASKED_EQ", 0xf000, 0xc000))), false},
		"refuse one type":    {allow(rule("ERRNO", fifo)), false},
		"refuse one device":  {allow(rule("ERRNO", arg(2, "EQ", 5, 0))), false},
		"equal":              {deny(rule("ALLOW", arg(1, "EQ", 0x1000, 0))), false},
		"twice compiled":     {mustJSON(t, compile(t, stock(t, "podman.json"), Options{Emulators: []string{"mknod"}})), true},
	}
}

func mustJSON(t testing.TB, r *Result) []byte {
	t.Helper()
	b, err := r.JSON()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestMknod runs the program for every type, several devices, garbage above the bits that count, all ABIs and both calls, and compares with what the
// base's own program says.
func TestMknod(t *testing.T) {
	for name, base := range bases(t) {
		t.Run(name, func(t *testing.T) {
			prog := build(t, compile(t, base.json, Options{Emulators: []string{"mknod"}}).Seccomp)
			plain := base.json
			if name == "twice compiled" {
				plain = stock(t, "podman.json")
			}
			before := build(t, compile(t, plain, Options{}).Seccomp)
			for _, a := range abis() {
				eachMknod(func(mode, dev uint64) {
					want := before.run(t, a, a.mknod, 1, mode, dev)
					allowed := want == retAllow
					compared := dev
					if a.argBits == 32 {
						compared = uint64(uint32(dev))
					}
					switch mode & unix.S_IFMT {
					case unix.S_IFBLK:
						want = retNotify
					case unix.S_IFCHR:
						if !base.exempts || !allowed || compared != 0 {
							want = retNotify
						}
					}
					if got := prog.run(t, a, a.mknod, 1, mode, dev); got != want {
						t.Fatalf("%s mknod(mode %#x, dev %#x): %#x, want %#x", a.name, mode, dev, got, want)
					}
				})
			}
		})
	}
}

func eachMknod(f func(mode, dev uint64)) {
	for kind := uint64(0); kind < 16; kind++ {
		for _, low := range []uint64{0, 0o644, 0o7777, 0x30000, 0xdeadbeef_00000000, 0xffffffff_ffff0fff} {
			for _, dev := range []uint64{0, 5, 0x103, 1 << 31, 0xffffffff, 1 << 32, 1<<32 | 5, 1 << 63} {
				f(kind<<12|low, dev)
			}
		}
	}
}

// TestMknodat is for bases that treat both calls alike.
func TestMknodat(t *testing.T) {
	for _, name := range []string{"built-in", "docker", "podman", "allow all", "deny all"} {
		t.Run(name, func(t *testing.T) {
			prog := build(t, compile(t, bases(t)[name].json, Options{Emulators: []string{"mknod"}}).Seccomp)
			for _, a := range abis() {
				eachMknod(func(mode, dev uint64) {
					// TestMknod has shown what is right for mknod.
					want := prog.run(t, a, a.mknod, 1, mode, dev)
					if got := prog.run(t, a, a.mknodat, 1, 1, mode, dev); got != want {
						t.Fatalf("%s mknodat(mode %#x, dev %#x): %#x, want %#x", a.name, mode, dev, got, want)
					}
				})
			}
		})
	}
}

// TestOthersUntouched runs every number there is with plain arguments.
func TestOthersUntouched(t *testing.T) {
	newAPI := map[uint32]bool{428: true, 429: true, 430: true, 431: true, 432: true, 433: true, 442: true}
	const openTreeAttr = 467 // whose name libseccomp has since 2.6.1
	for _, name := range []string{"built-in", "docker", "podman", "allow all"} {
		t.Run(name, func(t *testing.T) {
			base := bases(t)[name].json
			before := build(t, compile(t, base, Options{}).Seccomp)
			mknod := build(t, compile(t, base, Options{Emulators: []string{"mknod"}}).Seccomp)
			both := build(t, compile(t, base, Options{Emulators: []string{"mknod", "mount"}}).Seccomp)
			for _, a := range abis() {
				for nr := uint32(0); nr < 560; nr++ {
					n := a.base + nr
					want := before.run(t, a, n)
					if got := mknod.run(t, a, n); got != want {
						t.Errorf("%s %d with mknod: %#x, want %#x", a.name, nr, got, want)
					}
					if newAPI[nr] {
						want = retErrno | uint32(unix.ENOSYS)
					}
					if n == a.mount {
						want = retNotify
					}
					got := both.run(t, a, n)
					if nr == openTreeAttr && got == retErrno|uint32(unix.ENOSYS) {
						want = got
					}
					if got != want {
						t.Errorf("%s %d with mount: %#x, want %#x", a.name, nr, got, want)
					}
				}
			}
		})
	}
}

// TestTrap shows that the simulator sees what this package is for: a NOTIFY rule added to a stock profile does nothing.
func TestTrap(t *testing.T) {
	notify := specs.LinuxSyscall{Names: []string{"mknod"}, Action: specs.ActNotify,
		Args: []specs.LinuxSeccompArg{{Index: 1, Value: unix.S_IFMT, ValueTwo: unix.S_IFCHR, Op: specs.OpMaskedEqual}}}
	plain := compile(t, stock(t, "podman.json"), Options{}).Seccomp
	a := abis()[0]
	for name, rules := range map[string][]specs.LinuxSyscall{
		"appended":  append(plain.Syscalls[:len(plain.Syscalls):len(plain.Syscalls)], notify),
		"prepended": append([]specs.LinuxSyscall{notify}, plain.Syscalls...),
	} {
		naive := *plain
		naive.Syscalls = rules
		if got := build(t, &naive).run(t, a, a.mknod, 1, unix.S_IFCHR, 5); got != retAllow {
			t.Errorf("%s: %#x; the trap is gone, and with it the reason for stripping", name, got)
		}
	}
}
