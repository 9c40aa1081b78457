package mount

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/tracee"
)

// Of struct ext4_super_block (fs/ext4/ext4.h).
const (
	ext4Superblock    = 1024 // where it begins
	ext4Magic         = 0x38
	ext4JournalDev    = 0xE4
	ext4SuperMagic    = 0xEF53
	ext4ReadFromSuper = 0x100
)

// selfContained refuses an ext3 or ext4 filesystem whose journal is on a device
// of its own: the superblock names that by number, which neither the jail nor
// policy would see. Who can write to the device while it is being mounted can
// still have the kernel open another one for a moment; it mounts nothing from
// one whose journal does not bear this filesystem's UUID.
func (b *builder) selfContained(device *tracee.Handle) error {
	switch b.fstype {
	case "ext2", "ext3", "ext4":
	default:
		return nil
	}
	var super [ext4ReadFromSuper]byte
	if n, _ := unix.Pread(device.FD(), super[:], ext4Superblock); n < len(super) {
		return nil // the kernel says what is wrong with it
	}
	if binary.LittleEndian.Uint16(super[ext4Magic:]) != ext4SuperMagic || binary.LittleEndian.Uint32(super[ext4JournalDev:]) == 0 {
		return nil
	}
	return emulators.Denied{Reason: "filesystem has its journal on another device"}
}
