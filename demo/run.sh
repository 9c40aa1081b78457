#!/bin/sh
# Shows what callgate is for: the same commands in an unprivileged container,
# without it and with it. Usage: demo/run.sh CALLGATE
set -eu

callgate=$1
work=$(mktemp -d)
loop=
# shellcheck disable=SC2317 # the trap calls it
cleanup() {
	[ -z "$loop" ] || losetup --detach "$loop"
	rm -rf "$work"
}
trap cleanup EXIT
failures=0

# A disk for the containers: one loop device, which the configuration allows
# them to make a node of and to mount.
truncate -s 16M "$work/disk"
mkfs.ext4 -q "$work/disk"
loop=$(losetup --find --show "$work/disk")
minor=$((0x$(stat -c %T "$loop")))
cat >"$work/config.yaml" <<EOF
profiles:
  default:
    mknod:
      allow: ["c 1:3", "c 1:5", "b 7:$minor"]
    mount:
      allow:
        - {type: ext4, source: ["b 7:$minor"], options: [noatime]}
EOF

# What the container runs. Each line says what is expected of it with callgate.
cat >"$work/inside" <<'EOF'
try() {
	printf '  $ %s\n' "$*"
	"$@" 2>&1 | sed 's/^/      /'
}
try mknod "$1/tmp/null" c 1 3
try ls -ln "$1/tmp/null"
try sh -c "echo gone > $1/tmp/null && wc -c < $1/tmp/null"
try mknod "$1/dev/zero2" c 1 5
try sh -c "head -c 4 $1/dev/zero2 | hexdump -C | head -n 1"
try mknod "$1/tmp/sda" b 8 0
mkdir -p "$1/tmp/disk"
try mknod "$1/tmp/loop" b 7 "$2"
try mount -t ext4 -o noatime "$1/tmp/loop" "$1/tmp/disk"
try sh -c "echo kept > $1/tmp/disk/file"
try ls -ln "$1/tmp/disk/file"
try grep "$1/tmp/disk" /proc/self/mounts
try mount -o remount,ro "$1/tmp/disk"
try sh -c "echo more > $1/tmp/disk/file"
try umount "$1/tmp/disk"
try mount -t ext4 -o debug "$1/tmp/loop" "$1/tmp/disk"
EOF

echo "Without callgate, root of a user namespace is refused devices and filesystems:"
# shellcheck disable=SC2016 # $1 is the inner shell's
unshare --user --map-root-user --mount --pid --fork sh -ec '
	mkdir "$1/root"
	mount -t tmpfs tmpfs "$1/root"
	mkdir "$1/root/tmp" "$1/root/dev"
	mount -t tmpfs tmpfs "$1/root/dev"
	busybox sh "$1/inside" "$1/root" "$2"
' sh "$work" "$minor" >"$work/without" 2>&1 || true
grep -E 'mknod:|mount:' "$work/without" || cat "$work/without" >&2

echo
echo "With callgate, the same in an unprivileged container (uid 0 there is uid 100000 here):"
"$callgate" run --config "$work/config.yaml" -- sh -c "$(cat "$work/inside")" sh "" "$minor" 2>&1 | tee "$work/with"

# The demonstration is checked, so that it cannot come to lie.
expect() {
	if ! grep -Eq -e "$2" "$work/$1"; then
		echo "demo: $1 callgate: expected $3" >&2
		failures=$((failures + 1))
	fi
}
refused='Operation not permitted'
[ "$(grep -c "mknod: .*$refused" "$work/without")" -eq 4 ] || expect without 'cannot match' 'four refusals'
[ "$(grep -c "$refused" "$work/with")" -eq 1 ] || expect with 'cannot match' 'one refusal'
expect with "tmp/sda: $refused" 'the disk to be refused'
expect with 'crw-r--r-- +1 0 +0 +1, +3 .*/tmp/null' 'a null device owned by the container root'
expect with '^ +0$' 'null to be empty after writing to it'
expect with '00 00 00 00' 'zero2 to read zeroes'
expect with '-rw-r--r-- +1 0 +0 +5 .*/tmp/disk/file' 'a file of the container root on the disk'
expect with '/tmp/loop /tmp/disk ext4 rw,nosuid,nodev,noatime' 'a mount with locked flags'
expect with 'Read-only file system' 'the disk to be read-only after the remount'
expect with 'tmp/disk failed: Invalid argument' 'an option that is not allowed to be refused'
debugfs -R 'stat /file' "$work/disk" 2>/dev/null >"$work/image"
expect image 'User: +0 +Group: +0' 'the file to be the image root on the disk'
exit "$failures"
