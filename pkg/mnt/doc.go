// Package mnt makes mounts by descriptor: filesystem contexts (fsopen(2),
// fsconfig(2), fsmount(2), fspick(2)), detached mounts and their attributes
// (open_tree(2), mount_setattr(2), move_mount(2)), mount namespaces that hold
// nothing else, and seals, which make flags stay that a user namespace's root
// could take away.
//
// Nothing here looks a path of anybody's up. Mounts are made by the calling
// thread, in its mount namespace; see [tracee.Thread.InMounts].
//
// Needs Linux 5.12 (mount_setattr).
package mnt
