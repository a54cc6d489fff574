#!/usr/bin/env bash
# Makes build/mod32/go.mod, with which the 32-bit targets are built:
#
#     GOARCH=arm go build -modfile=build/mod32/go.mod ./cmd/holdfast
#
# The arena in which Badger builds its tables (ristretto, z/allocator.go) shifts
# an int by 32 bits. Where an int has 32 that is 0: when a buffer is full, memory
# that is in use is handed out again, and the tables on disk are damaged without
# an error. The shift of a uint64 is right. The changed copy is made here, from
# the module that go.mod asks for, so that there is no fork to look after.
# (go build -overlay refuses to replace files of the module cache.)
#
# It is quick when nothing is to be done, and may run many times at once: what is
# there is complete, and is only ever replaced as a whole.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
module=github.com/dgraph-io/ristretto/v2
wrong='atomic.StoreUint64(&a.compIdx, uint64((bufIdx+1)<<32))'
right='atomic.StoreUint64(&a.compIdx, uint64(bufIdx+1)<<32)'
out=build/mod32

die() {
	echo "mod32: $*" >&2
	exit 1
}

# GOFLAGS may name the very file that is to be made.
export GOFLAGS= GOWORK=off
find_module() { "$go" list -m -f '{{.Version}} {{.Dir}}' "$module"; }
read -r version dir < <(find_module) || die "$module is not in go.mod: if nothing needs it any more, remove this script"
if [ -z "$dir" ]; then
	"$go" mod download "$module" || die "fetch $module $version"
	read -r version dir < <(find_module)
fi
[ -f "$dir/z/allocator.go" ] || die "$module $version has no z/allocator.go: look where its Allocator is now"

# Another version of the module or of this script gets a folder of its own.
copy=$out/ristretto-$version-$(cksum <scripts/mod32.sh | cut -d ' ' -f 1)

mkdir -p "$out"
tmp=$(mktemp -d "$out/.new.XXXXXX")
trap 'chmod -R u+w "$tmp" && rm -rf "$tmp"' EXIT

if [ ! -d "$copy" ]; then
	[ "$(grep -cF "$wrong" "$dir/z/allocator.go")" = 1 ] ||
		die "$module $version: this line is not exactly once in z/allocator.go:" $'\n\t'"$wrong"$'\n'"Is the fault mended? Then remove this script and its uses. If not, change the line above."
	cp -R "$dir" "$tmp/copy"
	chmod -R u+w "$tmp/copy"
	# Nobody is to find its tests among ours.
	find "$tmp/copy" -name '*_test.go' -delete
	text=$(<"$dir/z/allocator.go")
	printf '%s\n' "${text/"$wrong"/"$right"}" >"$tmp/copy/z/allocator.go"
	[ "$(diff "$dir/z/allocator.go" "$tmp/copy/z/allocator.go" | grep -c '^>')" = 1 ] || die "the change of z/allocator.go came out wrong"
	# Another run may have been faster: then its copy is as good.
	mv -T "$tmp/copy" "$copy" 2>/dev/null || [ -f "$copy/z/allocator.go" ] || die "write $copy"
fi

cp go.mod "$tmp/go.mod"
cp go.sum "$tmp/go.sum"
"$go" mod edit -replace="$module@$version=./$copy" "$tmp/go.mod"
for f in go.sum go.mod; do
	# The same text keeps its time, so that nothing is built again for it.
	cmp -s "$tmp/$f" "$out/$f" || mv -f "$tmp/$f" "$out/$f"
done
