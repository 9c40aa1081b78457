#!/bin/sh
# Shows what callgate is for: the same commands in an unprivileged container,
# without it and with it. Usage: demo/run.sh CALLGATE
set -eu

callgate=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failures=0

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
EOF

echo "Without callgate, root of a user namespace is refused every device:"
# shellcheck disable=SC2016 # $1 is the inner shell's
unshare --user --map-root-user --mount --pid --fork sh -ec '
	mkdir "$1/root"
	mount -t tmpfs tmpfs "$1/root"
	mkdir "$1/root/tmp" "$1/root/dev"
	mount -t tmpfs tmpfs "$1/root/dev"
	busybox sh "$1/inside" "$1/root"
' sh "$work" >"$work/without" 2>&1 || true
grep mknod "$work/without" || cat "$work/without" >&2

echo
echo "With callgate, the same in an unprivileged container (uid 0 there is uid 100000 here):"
"$callgate" run -- sh -c "$(cat "$work/inside")" sh "" 2>&1 | tee "$work/with"

# The demonstration is checked, so that it cannot come to lie.
expect() {
	if ! grep -Eq "$2" "$work/$1"; then
		echo "demo: $1 callgate: expected $3" >&2
		failures=$((failures + 1))
	fi
}
refused='Operation not permitted'
[ "$(grep -c "mknod: .*$refused" "$work/without")" -eq 3 ] || expect without 'cannot match' 'three refusals'
[ "$(grep -c "$refused" "$work/with")" -eq 1 ] || expect with 'cannot match' 'one refusal'
expect with "tmp/sda: $refused" 'the disk to be refused'
expect with 'crw-r--r-- +1 0 +0 +1, +3 .*/tmp/null' 'a null device owned by the container root'
expect with '^ +0$' 'null to be empty after writing to it'
expect with '00 00 00 00' 'zero2 to read zeroes'
exit "$failures"
