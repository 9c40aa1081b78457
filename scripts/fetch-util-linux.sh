#!/usr/bin/env bash
# Extracts mount(8) and umount(8) of Debian trixie's util-linux, with the
# libraries that they need, into the folder given, if it is not there: the
# integration tests run a current mount(8), which tries the new mount API
# before mount(2). The machine's own apt configuration, lists and packages play
# no part and stay as they are. Needs no root.
set -euo pipefail

target=${1:-bin/tools/util-linux-trixie}
packages=(
	mount libmount1 libblkid1 libsmartcols1 libuuid1
	libselinux1 libpcre2-8-0 libc6 libgcc-s1
)

if [[ -d $target ]]; then
	exit 0
fi
for program in apt-get dpkg dpkg-deb; do
	command -v "$program" >/dev/null || {
		printf 'fetch-util-linux: no %s\n' "$program" >&2
		exit 1
	}
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[[ -r $keyring ]] || {
	printf 'fetch-util-linux: no %s: install debian-archive-keyring\n' "$keyring" >&2
	exit 1
}

mkdir -p "$(dirname "$target")"
# Beside the target, so that the last step is a rename.
dir=$(mktemp -d "$(dirname "$target")/.util-linux-XXXXXX")
trap 'rm -rf "$dir"' EXIT
dir=$(cd "$dir" && pwd)
mkdir -p "$dir"/{lists/partial,cache/archives/partial,etc/parts,log,tree}
: >"$dir/status"
: >"$dir/etc/preferences"
printf 'deb [signed-by=%s] http://deb.debian.org/debian trixie main\n' "$keyring" >"$dir/etc/sources.list"

# Proxies, and nothing else, come from the machine's configuration.
proxies=$(apt-config dump --format '%f "%v";%n' | grep -E '^Acquire::https?::proxy ' || true)
architecture=$(dpkg --print-architecture)
cat >"$dir/apt.conf" <<CONF
Dir::Etc::sourcelist "$dir/etc/sources.list";
Dir::Etc::sourceparts "$dir/etc/parts";
Dir::Etc::preferences "$dir/etc/preferences";
Dir::Etc::preferencesparts "$dir/etc/parts";
Dir::Etc::parts "$dir/etc/parts";
Dir::Etc::main "/dev/null";
Dir::Etc::trusted "/dev/null";
Dir::Etc::trustedparts "$dir/etc/parts";
Dir::State "$dir";
Dir::State::lists "$dir/lists";
Dir::State::status "$dir/status";
Dir::Cache "$dir/cache";
Dir::Log "$dir/log";
APT::Architecture "$architecture";
APT::Architectures { "$architecture"; };
APT::Sandbox::User "root";
APT::Update::Post-Invoke-Success "";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::http::Timeout "20";
$proxies
CONF
apt() {
	# APT_CONFIG is read first, and its Dir::Etc says that there is no more.
	(cd "$dir/cache" && APT_CONFIG="$dir/apt.conf" apt-get -qq "$@") </dev/null
}

log=$dir/messages
if ! { apt update && apt download "${packages[@]}"; } >"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
for package in "$dir"/cache/*.deb; do
	dpkg-deb -x "$package" "$dir/tree"
done
[[ -x $dir/tree/usr/bin/mount ]] || {
	printf 'fetch-util-linux: the packages have no usr/bin/mount\n' >&2
	exit 1
}
# Another run may have been faster; then its tree stays.
mv -T "$dir/tree" "$target" 2>/dev/null || [[ -d $target ]]
