#!/usr/bin/env bash
# Installs what building, testing and running callgate takes beyond Go, git and
# make, on Debian and Ubuntu. Does nothing where everything is there.
set -euo pipefail

packages=(
	# cgo and libseccomp
	gcc libc6-dev pkg-config libseccomp-dev
	# the containers of the demonstration and of the integration tests
	busybox-static util-linux runc crun podman
	# the filesystems that they mount
	e2fsprogs xfsprogs btrfs-progs squashfs-tools erofs-utils fuse2fs
	# what scripts/fetch-util-linux.sh checks Debian's packages by
	debian-archive-keyring
	# the linter of shell scripts
	shellcheck
)
if [[ $(uname -m) == x86_64 ]]; then
	# the tests' 32-bit callers
	packages+=(gcc-multilib libc6-dev-i386)
fi

installed() {
	[[ $(dpkg-query --show --showformat='${db:Status-Status}' "$1" 2>/dev/null) == installed ]]
}

if ! command -v apt-get dpkg-query >/dev/null; then
	printf 'setup: no apt-get; what is needed has these names in Debian: %s\n' "${packages[*]}" >&2
	exit 0
fi

missing=()
for package in "${packages[@]}"; do
	installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
	exit 0
fi
if ((EUID != 0)); then
	printf 'setup: missing, and only root can install: %s\n' "${missing[*]}" >&2
	exit 1
fi

printf 'setup: installing %s\n' "${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
options=(-qq -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { apt-get "${options[@]}" update && apt-get "${options[@]}" --yes --no-install-recommends install "${missing[@]}"; } \
	</dev/null >"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
