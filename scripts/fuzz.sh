#!/usr/bin/env bash
# Runs every fuzz target of the project for FUZZTIME each, one after another.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
GO=$go scripts/patch-modules.sh
export GOFLAGS=-modfile=$PWD/build/mod/go.mod
time=${FUZZTIME:-2s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT
found=0
failed=0

while IFS=: read -r file target; do
	found=$((found + 1))
	dir=$(dirname "$file")
	printf '%-28s %s for %s\n' "$dir" "$target" "$time"
	# Making an interesting input smaller is bounded: it would take a minute,
	# which is all of the time that there is.
	if "$go" test "./$dir" -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 10x >"$log" 2>&1; then
		continue
	fi
	# The end of the time may come while a worker is busy, which the go command
	# calls a failure of the target (golang.org/issue/48591).
	if grep -q 'context deadline exceeded' "$log" && ! grep -q 'Failing input' "$log"; then
		continue
	fi
	cat "$log"
	failed=1
done < <(grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*' . |
	sed -E 's/^\.\/([^:]*):[0-9]+:func (Fuzz.*)$/\1:\2/' | sort)

if [ "$found" = 0 ]; then
	echo "no fuzz target was found" >&2
	exit 1
fi
exit "$failed"
