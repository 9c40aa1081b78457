package profile

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/hooks/filter"
	"github.com/callgate/callgate/hooks/internal/bpfsim"
)

// mountABIs are the three of x86-64, and the two of an arm64 kernel.
func mountABIs() map[string][]abi {
	return map[string][]abi{
		"amd64": abis(),
		"arm64": {
			{name: "aarch64", arch: unix.AUDIT_ARCH_AARCH64, mount: 40},
			{name: "arm", arch: unix.AUDIT_ARCH_ARM, mount: 21},
		},
	}
}

// mountBases are those that treat mount(2) alike whatever its arguments, and what they do with it.
func mountBases(t testing.TB) map[string]struct {
	json []byte
	caps []string
	want uint32
} {
	type base = struct {
		json []byte
		caps []string
		want uint32
	}
	admin := []string{"CAP_SYS_ADMIN"}
	return map[string]base{
		"built-in":               {nil, nil, retAllow},
		"built-in and SYS_ADMIN": {nil, admin, retAllow},
		"docker":                 {stock(t, "docker.json"), nil, retErrno | uint32(unix.EPERM)},
		"docker and SYS_ADMIN":   {stock(t, "docker.json"), admin, retAllow},
		"podman":                 {stock(t, "podman.json"), nil, retAllow},
		"podman and SYS_ADMIN":   {stock(t, "podman.json"), admin, retAllow},
		"allow all":              {[]byte(`{"defaultAction": "SCMP_ACT_ALLOW"}`), nil, retAllow},
		"deny all":               {[]byte(`{"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}`), nil, retErrno | uint32(unix.ENOSYS)},
		"refuse in so many words": {[]byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}`),
			nil, retErrno | uint32(unix.EACCES)},
	}
}

// eachMountProgram compiles every base for both machines, with the mount emulator, and calls f with what the base says about mount.
func eachMountProgram(t *testing.T, f func(t *testing.T, prog program, a abi, base uint32)) {
	for name, base := range mountBases(t) {
		for arch, list := range mountABIs() {
			t.Run(name+"/"+arch, func(t *testing.T) {
				opts := Options{Arch: arch, Capabilities: base.caps}
				plain, err := Compile(base.json, opts)
				if err != nil {
					t.Fatal(err)
				}
				opts.Emulators = []string{"mknod", "mount"}
				with, err := Compile(base.json, opts)
				if err != nil {
					t.Fatal(err)
				}
				if len(with.Warnings) > 0 {
					t.Errorf("warnings: %q", with.Warnings)
				}
				if len(plain.Seccomp.Architectures) == 0 {
					t.Fatal("no architectures")
				}
				before, prog := build(t, plain.Seccomp), build(t, with.Seccomp)
				for _, a := range list {
					if got := before.run(t, a, a.mount, 1, 1, 1, unix.MS_BIND); got != base.want {
						t.Fatalf("%s: the base says %#x to mount, want %#x", a.name, got, base.want)
					}
					f(t, prog, a, base.want)
				}
			})
		}
	}
}

// TestMountKinds has a row for each thing that mount(2) does. What is the kernel's gets the base's answer. Garbage above bit 31 (to the kernel EINVAL,
// unless the magic number is there) does not change who answers.
func TestMountKinds(t *testing.T) {
	const agent, kernel = true, false
	const remountBind = unix.MS_REMOUNT | unix.MS_BIND
	rows := []struct {
		name  string
		flags uint64
		agent bool
	}{
		{"new", 0, agent},
		{"new, options", unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_RELATIME, agent},
		{"new, other options", unix.MS_SYNCHRONOUS | unix.MS_DIRSYNC | unix.MS_MANDLOCK | unix.MS_STRICTATIME | unix.MS_LAZYTIME | unix.MS_SILENT, agent},
		{"new, recursive", unix.MS_REC, agent}, // means nothing there
		{"new, NOUSER", unix.MS_NOUSER, agent}, // EINVAL to the kernel
		{"bind", unix.MS_BIND, kernel},
		{"rbind", unix.MS_BIND | unix.MS_REC, kernel},
		{"bind, read-only", unix.MS_BIND | unix.MS_RDONLY, kernel},
		{"bind, private", unix.MS_BIND | unix.MS_PRIVATE, kernel}, // a bind to the kernel
		{"move", unix.MS_MOVE, kernel},
		{"bind and move", unix.MS_BIND | unix.MS_MOVE, kernel},
		{"private", unix.MS_PRIVATE, kernel},
		{"rprivate", unix.MS_PRIVATE | unix.MS_REC, kernel},
		{"shared", unix.MS_SHARED, kernel},
		{"rshared", unix.MS_SHARED | unix.MS_REC, kernel},
		{"slave", unix.MS_SLAVE, kernel},
		{"rslave", unix.MS_SLAVE | unix.MS_REC, kernel},
		{"unbindable", unix.MS_UNBINDABLE, kernel},
		{"runbindable", unix.MS_UNBINDABLE | unix.MS_REC, kernel},
		{"private and slave", unix.MS_PRIVATE | unix.MS_SLAVE, kernel}, // EINVAL
		{"all four", unix.MS_SHARED | unix.MS_PRIVATE | unix.MS_SLAVE | unix.MS_UNBINDABLE, kernel},
		{"move, private", unix.MS_MOVE | unix.MS_PRIVATE, kernel},
		{"remount", unix.MS_REMOUNT, agent},
		{"remount, read-only", unix.MS_REMOUNT | unix.MS_RDONLY, agent},
		{"remount, nosuid, nodev", unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV, agent},
		{"remount, private", unix.MS_REMOUNT | unix.MS_PRIVATE, agent}, // a remount to the kernel, as are the next two
		{"remount, move", unix.MS_REMOUNT | unix.MS_MOVE, agent},
		{"remount, shared", unix.MS_REMOUNT | unix.MS_SHARED | unix.MS_REC, agent},
		{"remount bind", remountBind, agent},
		{"remount bind, read-only", remountBind | unix.MS_RDONLY, agent},
		{"remount bind, nosuid", remountBind | unix.MS_NOSUID, agent},
		{"remount bind, nodev", remountBind | unix.MS_NODEV, agent},
		{"remount bind, read-only, nodev, noexec", remountBind | unix.MS_RDONLY | unix.MS_NODEV | unix.MS_NOEXEC, agent},
		{"remount bind, nosuid, nodev", remountBind | unix.MS_NOSUID | unix.MS_NODEV, kernel},
		{"remount bind, read-only, nosuid, nodev", remountBind | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV, kernel},
		{"remount bind, nosuid, nodev, private", remountBind | unix.MS_NOSUID | unix.MS_NODEV | unix.MS_PRIVATE | unix.MS_MOVE, kernel},
	}
	eachMountProgram(t, func(t *testing.T, prog program, a abi, base uint32) {
		for _, row := range rows {
			variants := map[string]uint64{
				"":                         row.flags,
				", garbage above":          row.flags | 0xdeadbeef<<32,
				", all of it":              row.flags | 0xffffffff<<32,
				", magic":                  row.flags&^unix.MS_MGC_MSK | unix.MS_MGC_VAL,
				", magic, garbage on top":  row.flags&^unix.MS_MGC_MSK | unix.MS_MGC_VAL | 1<<32,
				", garbage like the magic": row.flags | unix.MS_MGC_VAL<<32,
			}
			for variant, flags := range variants {
				// The magic replaces the upper half: what was there is gone, and that is a new mount if only a change of propagation was.
				toAgent := row.agent || flags&unix.MS_MGC_MSK == unix.MS_MGC_VAL && row.flags&(remountBind|unix.MS_MOVE) == 0
				want := base
				if toAgent {
					want = retNotify
				}
				if got := prog.run(t, a, a.mount, 1, 1, 1, flags, 1); got != want {
					t.Errorf("%s %s%s (%#x): %#x, want %#x", a.name, row.name, variant, flags, got, want)
				}
			}
		}
	})
}

// agentsMount reads the flags as path_mount does.
func agentsMount(flags uint64) bool {
	if flags&unix.MS_MGC_MSK == unix.MS_MGC_VAL {
		flags &^= unix.MS_MGC_MSK
	}
	switch {
	case flags&unix.MS_REMOUNT != 0 && flags&unix.MS_BIND != 0:
		return flags&unix.MS_NOSUID == 0 || flags&unix.MS_NODEV == 0
	case flags&unix.MS_REMOUNT != 0:
		return true
	case flags&unix.MS_BIND != 0:
		return false
	case flags&(unix.MS_SHARED|unix.MS_PRIVATE|unix.MS_SLAVE|unix.MS_UNBINDABLE) != 0:
		return false
	case flags&unix.MS_MOVE != 0:
		return false
	}
	return true
}

// TestMount has every combination of the lower flags that decide, with every upper flag, and with the magic number and one or two bits of it wrong.
func TestMount(t *testing.T) {
	uppers := []uint64{0, unix.MS_MGC_VAL, 1 << 40, 1<<40 | unix.MS_MGC_VAL}
	for bit := uint64(1 << 16); bit <= 1<<31; bit <<= 1 {
		uppers = append(uppers, bit, bit|1<<18, bit|1<<19, bit|3<<18, unix.MS_MGC_VAL^bit, unix.MS_MGC_VAL^bit^1<<18, unix.MS_MGC_VAL^bit^1<<19)
	}
	eachMountProgram(t, func(t *testing.T, prog program, a abi, base uint32) {
		for _, upper := range uppers {
			for _, lower := range lowerFlags() {
				want := base
				if agentsMount(upper | lower) {
					want = retNotify
				}
				if got := prog.run(t, a, a.mount, 1, 1, 1, upper|lower); got != want {
					t.Fatalf("%s mount(flags %#x): %#x, want %#x", a.name, upper|lower, got, want)
				}
			}
		}
	})
}

// lowerFlags has every combination of the flags below bit 16 that decide, alone and with some that do not.
func lowerFlags() []uint64 {
	decide := []uint64{unix.MS_NOSUID, unix.MS_NODEV, unix.MS_REMOUNT, unix.MS_BIND, unix.MS_MOVE, unix.MS_RDONLY | unix.MS_REC | unix.MS_SILENT}
	var out []uint64
	for set := range 1 << len(decide) {
		var flags uint64
		for i, flag := range decide {
			if set&(1<<i) != 0 {
				flags |= flag
			}
		}
		out = append(out, flags)
	}
	return out
}

// TestMountConditionalBase: what a base says about some kinds of mount holds on for those that stay with the kernel.
func TestMountConditionalBase(t *testing.T) {
	base := []byte(`{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
		{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 3, "value": 4096, "valueTwo": 4096, "op": "SCMP_CMP_MASKED_EQ"}]},
		{"names": ["mount"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 3, "value": 262144, "valueTwo": 262144, "op": "SCMP_CMP_MASKED_EQ"}]},
		{"names": ["mount"], "action": "SCMP_ACT_NOTIFY", "args": [{"index": 3, "value": 1978400, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}`)
	before := build(t, compile(t, base, Options{}).Seccomp)
	result := compile(t, base, Options{Emulators: []string{"mount"}})
	if len(result.Warnings) == 0 {
		t.Error("no warning")
	}
	prog := build(t, result.Seccomp)
	for _, a := range abis() {
		for _, upper := range []uint64{0, unix.MS_PRIVATE, unix.MS_SLAVE, unix.MS_SHARED, unix.MS_MGC_VAL, unix.MS_MGC_VAL ^ 1<<31, 1 << 33} {
			for _, lower := range lowerFlags() {
				flags := upper | lower
				want := before.run(t, a, a.mount, 1, 1, 1, flags)
				if agentsMount(flags) {
					want = retNotify
				}
				if got := prog.run(t, a, a.mount, 1, 1, 1, flags); got != want {
					t.Fatalf("%s mount(flags %#x): %#x, want %#x", a.name, flags, got, want)
				}
			}
		}
	}
}

// TestMountMatchesAreDisjoint, as libseccomp needs them.
func TestMountMatchesAreDisjoint(t *testing.T) {
	matches := agentMounts()
	for i, m := range matches {
		for _, o := range matches[i+1:] {
			if both, ok := m.intersect(o.bits); ok {
				t.Errorf("%#x and %#x have %#x in common", m.bits, o.bits, both)
			}
		}
	}
}

// TestMountPrograms: mount(8), umount(8), unshare(1) and pivot_root(8) work under the built-in profile without another capability option.
func TestMountPrograms(t *testing.T) {
	prog := build(t, compile(t, nil, Options{Emulators: []string{"mknod", "mount"}}).Seccomp)
	numbers := map[string][2]uint32{ // x86_64 (and x32), i386
		"umount2": {166, 52}, "pivot_root": {155, 217}, "chroot": {161, 61}, "unshare": {272, 310}, "setns": {308, 346},
		"clone": {56, 120}, "clone3": {435, 435}, "statfs": {137, 99}, "fstatfs": {138, 100}, "statx": {332, 383},
		"readlink": {89, 85}, "readlinkat": {267, 305}, "openat": {257, 295}, "flock": {73, 143}, "chdir": {80, 12}, "fchdir": {81, 133},
		"setresuid": {117, 164}, "inotify_init1": {291, 332}, "name_to_handle_at": {303, 341},
	}
	for _, a := range abis() {
		for name, nr := range numbers {
			n := a.base + nr[0]
			if a.arch == unix.AUDIT_ARCH_I386 {
				n = nr[1]
			}
			if got := prog.run(t, a, n); got != retAllow {
				t.Errorf("%s %s: %#x", a.name, name, got)
			}
		}
	}
	x86, i386, x32 := abis()[0], abis()[1], abis()[2]
	for name, got := range map[string]uint32{
		"x86_64 ioctl": prog.run(t, x86, 16), "i386 ioctl": prog.run(t, i386, 54), "x32 ioctl": prog.run(t, x32, x32.base+514),
		"i386 umount": prog.run(t, i386, 22),
	} {
		if got != retAllow {
			t.Errorf("%s: %#x", name, got)
		}
	}
}

// TestMountCost holds the instructions that the filter spends on the flags of a call that stays the kernel's. libseccomp puts calls with conditions
// last, so the greater part is the way there: what an unknown call costs.
func TestMountCost(t *testing.T) {
	const most = 90
	opts := func(emulators ...string) Options {
		return Options{Emulators: emulators, Capabilities: []string{"CAP_SYS_ADMIN"}}
	}
	for _, name := range []string{"built-in", "docker", "podman"} {
		base := bases(t)[name].json
		stock := build(t, compile(t, base, opts()).Seccomp)
		prog := build(t, compile(t, base, opts("mknod", "mount")).Seccomp)
		a := abis()[0]
		count := func(p program, nr uint32, flags uint64) int {
			_, n, err := bpfsim.Count(p, bpfsim.Call{Nr: nr, Arch: a.arch, Args: [6]uint64{3: flags}})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		unknown := count(prog, 999, 0)
		for kind, flags := range map[string]uint64{
			"rprivate": unix.MS_PRIVATE | unix.MS_REC, "rslave": unix.MS_SLAVE | unix.MS_REC, "shared": unix.MS_SHARED,
			"bind": unix.MS_BIND, "rbind": unix.MS_BIND | unix.MS_REC, "move": unix.MS_MOVE,
			"remount bind": unix.MS_REMOUNT | unix.MS_BIND | unix.MS_NOSUID | unix.MS_NODEV,
		} {
			n := count(prog, a.mount, flags)
			t.Logf("%s %s: %d instructions, %d more than an unknown call, %d in the base", name, kind, n, n-unknown, count(stock, a.mount, flags))
			if n > unknown+most {
				t.Errorf("%s %s: %d instructions, an unknown call %d", name, kind, n, unknown)
			}
		}
	}
}

// BenchmarkMountKept makes calls that stay the kernel's, with no filter, under the base and with the emulators on.
func BenchmarkMountKept(b *testing.B) {
	for _, c := range []struct {
		name      string
		filtered  bool
		emulators []string
	}{
		{"no filter", false, nil},
		{"base", true, nil},
		{"mknod", true, []string{"mknod"}},
		{"mount", true, []string{"mknod", "mount"}},
	} {
		b.Run(c.name, func(b *testing.B) {
			var prog program
			if c.filtered {
				prog = build(b, compile(b, nil, Options{Emulators: c.emulators}).Seccomp)
			}
			dir := b.TempDir()
			result := make(chan error)
			go func() {
				runtime.LockOSThread() // and never unlocked: the filter and the mount namespace end with the thread
				result <- mountsOnThread(b, dir, prog)
			}()
			if err := <-result; err != nil {
				b.Skip(err)
			}
		})
	}
}

// mountsOnThread fails where it may not mount.
func mountsOnThread(b *testing.B, dir string, prog program) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("callgate", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }() // it ends with the namespace
	if prog != nil {
		listener, err := filter.Load(prog, 0)
		if err != nil {
			return err
		}
		defer unix.Close(listener)
	}
	b.ResetTimer()
	for range b.N {
		if err := unix.Mount("", dir, "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
			return err
		}
	}
	b.StopTimer()
	return nil
}
