#!/usr/bin/env bash
# Makes build/package/holdfast_VERSION_ARCH.deb and, beside it, a list of what it
# is made of (.cdx.json). The same commit gives the same bytes:
#
#     scripts/package.sh amd64 arm64 armhf
#
# armhf is for every Raspberry Pi with a 32-bit system, the first one too (ARMv6).
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
nfpm=(env -u GOFLAGS "$go" run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2)
out=${OUT:-build/package}

describe=$(git describe --tags --match 'v[0-9]*' --dirty=+dirty 2>/dev/null) ||
	describe=v0.0.0+$(TZ=UTC git log -1 --format=%cd --date=format-local:%Y%m%d.%H%M%S).$(git describe --always --dirty=+dirty)
version=${describe#v}
version=${version//-/+}
export SOURCE_DATE_EPOCH
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export TZ=UTC LC_ALL=C

mkdir -p build "$out"
stage=$(mktemp -d "$PWD/build/.package.XXXXXX")
trap 'rm -rf "$stage"' EXIT

# What every processor has: made by a program of this one.
make -s build VERSION="$version" GOFLAGS=-tags=pack OUT="$stage/pack" GOARCH= GOARM=
mkdir "$stage/man"
"$stage/pack" man "$stage/man"
gzip -n9 "$stage"/man/*.1
tool=$stage/tool
make -s build VERSION="$version" OUT="$tool" GOARCH= GOARM=
"$tool" completion bash >"$stage/holdfast.bash"
"$tool" completion zsh >"$stage/_holdfast"
"$tool" completion fish >"$stage/holdfast.fish"
gzip -n9c CHANGELOG.md >"$stage/changelog.gz"
cat >"$stage/copyright" <<TEXT
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: Holdfast

Files: *
Copyright: The Holdfast authors
License: Apache-2.0
 On Debian systems the full text is in /usr/share/common-licenses/Apache-2.0.
TEXT

for arch in "$@"; do
	case $arch in
	amd64 | arm64) goarch=$arch goarm= ;;
	armhf) goarch=arm goarm=6 ;;
	*)
		echo "package.sh: no package is made for $arch; amd64, arm64 and armhf are" >&2
		exit 1
		;;
	esac
	binary=$stage/holdfast-$arch
	make -s build VERSION="$version" OUT="$binary" GOARCH=$goarch GOARM=$goarm
	{
		cat <<YAML
name: holdfast
arch: $arch
platform: linux
version: "$version"
version_schema: none
section: net
priority: optional
maintainer: Holdfast maintainers <maintainers@holdfast.invalid>
description: |
  MQTT gateway that loses nothing on a bad line
  A local MQTT broker for the sensors on a LAN, a queue on disk, and a bridge to
  a far broker, over the network or an LTE module. What it has acknowledged is
  safe.
license: Apache-2.0
deb:
  compression: xz
scripts:
  postinstall: scripts/package/postinst
  preremove: scripts/package/prerm
  postremove: scripts/package/postrm
contents:
  - {src: "$binary", dst: /usr/bin/holdfast, file_info: {mode: 0755}}
  - {src: scripts/package/gateway.toml, dst: /etc/holdfast/gateway.toml, type: config, file_info: {mode: 0640}}
  - {src: scripts/package/holdfast.service, dst: /usr/lib/systemd/system/holdfast.service, file_info: {mode: 0644}}
  - {src: "$stage/holdfast.bash", dst: /usr/share/bash-completion/completions/holdfast, file_info: {mode: 0644}}
  - {src: "$stage/_holdfast", dst: /usr/share/zsh/vendor-completions/_holdfast, file_info: {mode: 0644}}
  - {src: "$stage/holdfast.fish", dst: /usr/share/fish/vendor_completions.d/holdfast.fish, file_info: {mode: 0644}}
  - {src: "$stage/changelog.gz", dst: /usr/share/doc/holdfast/changelog.gz, file_info: {mode: 0644}}
  - {src: "$stage/copyright", dst: /usr/share/doc/holdfast/copyright, file_info: {mode: 0644}}
  - {src: README.md, dst: /usr/share/doc/holdfast/README.md, file_info: {mode: 0644}}
YAML
		for f in configs/*.toml docs/*; do
			echo "  - {src: $f, dst: /usr/share/doc/holdfast/${f#*/}, file_info: {mode: 0644}}"
		done
		for f in "$stage"/man/*; do
			echo "  - {src: \"$f\", dst: /usr/share/man/man1/${f##*/}, file_info: {mode: 0644}}"
		done
	} >"$stage/nfpm.yaml"
	deb=$out/holdfast_${version}_$arch.deb
	"${nfpm[@]}" package -f "$stage/nfpm.yaml" -p deb -t "$deb" >/dev/null
	"$stage/pack" sbom "$binary" "$version" >"${deb%.deb}.cdx.json"
	echo "$deb"
done
