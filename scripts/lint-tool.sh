#!/usr/bin/env bash
# Builds golangci-lint, of the version given, as the file given, if it is not
# there. It stays out of go.mod: what it depends on is not our business.
set -euo pipefail

version=$1
program=$2
if [[ -x $program ]]; then
	exit 0
fi
printf 'lint: building golangci-lint %s\n' "$version"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
GOBIN=$dir GOFLAGS='' go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version" 2>"$dir/log" || {
	cat "$dir/log" >&2
	exit 1
}
mkdir -p "$(dirname "$program")"
mv "$dir/golangci-lint" "$program"
