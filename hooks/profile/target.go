package profile

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// target is the container and host that a profile is resolved for.
type target struct {
	name    string       // as in the includes and excludes of Docker's format, which are libseccomp's names
	arches  []specs.Arch // the native one and those whose programs it runs as well
	caps    map[string]bool
	allCaps bool
	release string // uname -r
}

func newTarget(opts Options) (target, error) {
	goarch := opts.Arch
	if goarch == "" {
		goarch = runtime.GOARCH
	}
	t, ok := machines()[goarch]
	if !ok {
		return target{}, fmt.Errorf("unknown architecture %q", goarch)
	}
	t.caps = make(map[string]bool)
	for _, c := range dockerCapabilities() {
		t.caps[c] = true
	}
	for _, c := range opts.Capabilities {
		name := strings.TrimPrefix(strings.ToUpper(c), "CAP_")
		if strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_") != "" || name == "" {
			return target{}, fmt.Errorf("%q is no capability", c)
		}
		t.allCaps = t.allCaps || name == "ALL"
		t.caps["CAP_"+name] = true
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return target{}, fmt.Errorf("uname: %w", err)
	}
	t.release = unix.ByteSliceToString(uts.Release[:])
	return t, nil
}

func (t target) holds(capability string) bool {
	return t.allCaps || t.caps[capability]
}

// kernelAtLeast compares with a version as Docker's format has it, "4.8". Features are better found by trying; but here the format asks for the version.
func (t target) kernelAtLeast(min string) (bool, error) {
	var want, have [2]uint
	if n, err := fmt.Sscanf(min+"\n", "%d.%d\n", &want[0], &want[1]); n != 2 || err != nil {
		return false, fmt.Errorf("minKernel %q is not of the form 4.8", min)
	}
	if _, err := fmt.Sscanf(t.release, "%d.%d", &have[0], &have[1]); err != nil {
		return false, fmt.Errorf("kernel release %q: %w", t.release, err)
	}
	return slices.Compare(have[:], want[:]) >= 0, nil
}

// dockerCapabilities is what Docker gives a container that asks for nothing. It differs from podman's by CAP_MKNOD, CAP_NET_RAW and CAP_AUDIT_WRITE.
func dockerCapabilities() []string {
	return []string{
		"CAP_AUDIT_WRITE", "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_MKNOD",
		"CAP_NET_BIND_SERVICE", "CAP_NET_RAW", "CAP_SETFCAP", "CAP_SETGID", "CAP_SETPCAP", "CAP_SETUID", "CAP_SYS_CHROOT",
	}
}

// machines has every GOARCH that Linux and libseccomp know.
func machines() map[string]target {
	m := func(name string, arches ...specs.Arch) target { return target{name: name, arches: arches} }
	return map[string]target{
		"386":      m("x86", specs.ArchX86),
		"amd64":    m("amd64", specs.ArchX86_64, specs.ArchX86, specs.ArchX32),
		"arm":      m("arm", specs.ArchARM),
		"arm64":    m("arm64", specs.ArchAARCH64, specs.ArchARM),
		"loong64":  m("loongarch64", specs.ArchLOONGARCH64),
		"mips64":   m("mips64", specs.ArchMIPS64, specs.ArchMIPS, specs.ArchMIPS64N32),
		"mips64le": m("mipsel64", specs.ArchMIPSEL64, specs.ArchMIPSEL, specs.ArchMIPSEL64N32),
		"mipsle":   m("mipsel", specs.ArchMIPSEL),
		"ppc64":    m("ppc64", specs.ArchPPC64, specs.ArchPPC),
		"ppc64le":  m("ppc64le", specs.ArchPPC64LE),
		"riscv64":  m("riscv64", specs.ArchRISCV64),
		"s390x":    m("s390x", specs.ArchS390X, specs.ArchS390),
	}
}

func knownArches() []specs.Arch {
	return []specs.Arch{
		specs.ArchX86, specs.ArchX86_64, specs.ArchX32, specs.ArchARM, specs.ArchAARCH64,
		specs.ArchMIPS, specs.ArchMIPS64, specs.ArchMIPS64N32, specs.ArchMIPSEL, specs.ArchMIPSEL64, specs.ArchMIPSEL64N32,
		specs.ArchPPC, specs.ArchPPC64, specs.ArchPPC64LE, specs.ArchS390, specs.ArchS390X, specs.ArchPARISC, specs.ArchPARISC64,
		specs.ArchRISCV64, specs.ArchLOONGARCH64, specs.ArchM68K, specs.ArchSH, specs.ArchSHEB,
	}
}
