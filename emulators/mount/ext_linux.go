package mount

import (
	"bytes"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/callgate/callgate/emulators"
	"github.com/callgate/callgate/pkg/mnt"
	"github.com/callgate/callgate/pkg/tracee"
)

// Of struct ext4_super_block (fs/ext4/ext4.h).
const (
	extSuperblock   = 1024 // where it begins
	extMagic        = 0x38
	extErrors       = 0x3C
	extJournalDev   = 0xE4
	extMountOptions = 0x200
	extOptionsSize  = 64
	extSuperMagic   = 0xEF53
	extContinue     = 1 // EXT4_ERRORS_CONTINUE
)

// isExt says whether the filesystem is one of ext4's, whose superblock has
// mount options in it.
func (m *mounter) isExt() bool {
	return slices.Contains([]string{"ext2", "ext3", "ext4"}, m.fstype)
}

// inspect refuses what an ext filesystem's superblock asks for past the
// caller's options: a journal on a device of its own, which it names by number,
// so that neither the jail nor policy would see it; and mount options that
// policy does not allow. Who can write to the device while it is being mounted
// can still have the kernel open another one for a moment; it mounts nothing
// from one whose journal does not bear this filesystem's UUID.
func (b *builder) inspect(device *tracee.Handle) error {
	if !b.isExt() {
		return nil
	}
	b.errors = "remount-ro"
	var super [extMountOptions + extOptionsSize]byte
	if n, _ := unix.Pread(device.FD(), super[:], extSuperblock); n < len(super) {
		return nil // the kernel says what is wrong with it
	}
	if binary.LittleEndian.Uint16(super[extMagic:]) != extSuperMagic {
		return nil
	}
	if binary.LittleEndian.Uint16(super[extErrors:]) == extContinue {
		b.errors = "continue"
	}
	if binary.LittleEndian.Uint32(super[extJournalDev:]) != 0 {
		return emulators.Denied{Reason: "filesystem has its journal on another device"}
	}
	text, _, _ := bytes.Cut(super[extMountOptions:], []byte{0})
	options, err := parseOptions(string(text))
	if err != nil {
		return emulators.Denied{Reason: "filesystem's own mount options cannot be read", Detail: err.Error()}
	}
	for _, o := range options {
		if err := b.rule.allowsParameter(o); err != nil {
			return err
		}
	}
	return nil
}

// calm keeps an ext filesystem from taking the host down with it: its
// superblock may say that errors are to panic, or come to say so by the time
// that the kernel reads it. Only an option, which policy has to allow, can.
func (b *builder) calm(fs *mnt.Context) error {
	if b.errors == "" || slices.ContainsFunc(b.params, func(p parameter) bool { return p.key == "errors" }) {
		return nil
	}
	if err := fs.SetString("errors", b.errors); err != nil {
		return b.failed("set errors", err, fs)
	}
	return nil
}
