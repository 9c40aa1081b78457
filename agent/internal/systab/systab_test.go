package systab

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestBuildFor(t *testing.T) {
	// Numbers from arch/x86/entry/syscalls/*.tbl, arch/arm/tools/syscall.tbl
	// and include/uapi/asm-generic/unistd.h. LXD's arm64 table has 21 for
	// mount, which is epoll_ctl.
	tests := []struct {
		goarch string
		want   map[Key]string
	}{
		{"amd64", map[Key]string{
			{unix.AUDIT_ARCH_X86_64, 133}:              "mknod",
			{unix.AUDIT_ARCH_X86_64, 259}:              "mknodat",
			{unix.AUDIT_ARCH_X86_64, 165}:              "mount",
			{unix.AUDIT_ARCH_I386, 14}:                 "mknod",
			{unix.AUDIT_ARCH_I386, 297}:                "mknodat",
			{unix.AUDIT_ARCH_I386, 21}:                 "mount",
			{unix.AUDIT_ARCH_X86_64, 0x40000000 | 133}: "mknod",
			{unix.AUDIT_ARCH_X86_64, 0x40000000 | 259}: "mknodat",
			{unix.AUDIT_ARCH_X86_64, 0x40000000 | 165}: "mount",
		}},
		{"arm64", map[Key]string{
			{unix.AUDIT_ARCH_AARCH64, 33}: "mknodat",
			{unix.AUDIT_ARCH_AARCH64, 40}: "mount",
			{unix.AUDIT_ARCH_ARM, 14}:     "mknod",
			{unix.AUDIT_ARCH_ARM, 324}:    "mknodat",
			{unix.AUDIT_ARCH_ARM, 21}:     "mount",
		}},
	}
	for _, test := range tests {
		t.Run(test.goarch, func(t *testing.T) {
			table, err := BuildFor(test.goarch, []string{"mknod", "mknodat", "mount"})
			if err != nil {
				t.Fatal(err)
			}
			got := table.Calls()
			if len(got) != len(test.want) {
				t.Errorf("table has %d calls, want %d: %v", len(got), len(test.want), got)
			}
			for key, name := range test.want {
				if got[key] != name {
					t.Errorf("%#x number %#x is %q, want %q", key.Arch, key.NR, got[key], name)
				}
			}
		})
	}
}

func TestBuildForUnknown(t *testing.T) {
	if _, err := BuildFor("amd64", []string{"mknood"}); err == nil {
		t.Error("an unknown call gave a table")
	}
	if _, err := BuildFor("pdp11", []string{"mknod"}); err == nil {
		t.Error("an unknown architecture gave a table")
	}
}
