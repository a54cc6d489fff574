#!/usr/bin/env bash
# Makes the packages twice, from two folders, and compares them; then installs,
# upgrades, removes and purges the one of this processor in a small Debian of its
# own (build/debian), which comes from the mirror that this machine's apt uses. The
# others are installed there too, with their programs in qemu-user if that is here,
# and the unit is tried under a systemd of its own (systemd-test.sh).
# Needs root and debootstrap. Works on the last commit.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { echo "== $*"; }
die() {
	echo "package-test: $*" >&2
	exit 1
}

[ "$(id -u)" = 0 ] || die "run it as root: it needs chroot"
command -v debootstrap >/dev/null || die "debootstrap is not installed: apt-get install debootstrap"
archs=${ARCHS:-amd64 arm64 armhf}

mkdir -p build
work=$(mktemp -d "$PWD/build/.package-test.XXXXXX")
gateway=
finish() {
	[ -z "$gateway" ] || kill -9 "$gateway" 2>/dev/null || true
	chmod -R u+w "$work"
	rm -rf "$work"
}
trap finish EXIT

for n in one two; do
	step "make the packages: $n"
	git clone -q . "$work/$n"
	# shellcheck disable=SC2086
	(cd "$work/$n" && OUT="$work/$n.out" scripts/package.sh $archs)
done
step "the same bytes"
diff -rq "$work/one.out" "$work/two.out" || die "two builds of one commit differ"
(cd "$work/one.out" && sha256sum ./*)

arch=$(dpkg --print-architecture)
deb=$(ls "$work"/one.out/*_"$arch".deb)
sbom=${deb%.deb}.cdx.json
[ "$(grep -c '"purl": "pkg:golang/github.com/dgraph-io/badger' "$sbom")" -ge 1 ] || die "badger is not in $sbom"

base=$PWD/build/debian
if [ ! -e "$base/.complete" ] || [ ! -x "$base/lib/systemd/systemd" ]; then
	read -r suite mirror < <(apt-get indextargets --format '$(CODENAME) $(REPO_URI)' 'Created-By: Packages' 'Component: main' |
		grep -v -e security -e updates | head -1)
	[ -n "$mirror" ] || die "apt has no Debian mirror in its sources"
	step "a Debian $suite in $base"
	rm -rf "$base"
	debootstrap --variant=minbase --include=systemd "$suite" "$base" "$mirror" >"$work/debootstrap.log" 2>&1 ||
		die "debootstrap: $(tail -5 "$work/debootstrap.log")"
	touch "$base/.complete"
fi
root=$work/root
cp -a "$base" "$root"
clean=(/usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive)
in_root() { chroot "$root" "${clean[@]}" "$@"; }
has() { [ -e "$root$1" ] || die "$1 is missing"; }
hasnot() { [ ! -e "$root$1" ] || die "$1 is still there"; }
config=/etc/holdfast/gateway.toml

step "install"
cp "$deb" "$root/one.deb"
in_root dpkg -i /one.deb </dev/null
in_root id holdfast | grep -q dialout || die "the user holdfast is not in dialout"
[ "$(stat -c %a "$root$config")" = 640 ] || die "$config has mode $(stat -c %a "$root$config")"
in_root stat -c %U:%G "$config" | grep -qx root:holdfast || die "$config has another owner"
in_root stat -c %U:%a /var/lib/holdfast | grep -qx holdfast:750 || die "/var/lib/holdfast has another owner or mode"
for f in /usr/share/man/man1/holdfast-status.1.gz /usr/share/bash-completion/completions/holdfast \
	/usr/share/zsh/vendor-completions/_holdfast /usr/share/fish/vendor_completions.d/holdfast.fish \
	/usr/lib/systemd/system/holdfast.service /usr/share/doc/holdfast/gateway.toml; do
	has "$f"
done
in_root holdfast version
in_root holdfast check -c "$config" | tee "$work/check"
grep -q 'listener  *127.0.0.1:1883 ' "$work/check" || die "the configuration of the package listens beyond this board"
if in_root ldd /usr/bin/holdfast >/dev/null 2>&1; then die "the program is not static"; fi

# A free port, so that nothing else on this machine is met.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cat >>"$root$config" <<TOML
address = ""
[[listener]]
address = "127.0.0.1:$port"
[[bridge]]
name = "cloud"
  [[bridge.upstream]]
  url = "tcp://127.0.0.1:1"
  [[bridge.route]]
  direction = "out"
  topic = "#"
TOML
start() {
	in_root install -d -o holdfast -g holdfast -m 750 /run/holdfast
	chroot "$root" "${clean[@]}" setpriv --reuid holdfast --regid holdfast --init-groups holdfast run -c "$config" 2>>"$work/log" &
	gateway=$!
	for _ in $(seq 600); do
		if in_root holdfast status -c "$config" >"$work/status" 2>/dev/null; then return; fi
		kill -0 "$gateway" 2>/dev/null || die "the gateway has ended: $(tail -5 "$work/log")"
		read -r -t 0.1 <> <(:) || true
	done
	die "the gateway does not answer: $(tail -5 "$work/log")"
}
stop() {
	kill "$gateway"
	wait "$gateway" || die "the gateway did not end well: $(tail -5 "$work/log")"
	gateway=
}
queued() { in_root holdfast queue ls -c "$config" | grep -Eq "^cloud +$1 " || die "not $1 messages: $(in_root holdfast queue ls -c "$config")"; }

step "messages for a broker that is away"
start
for n in 1 2 3 4 5; do in_root holdfast pub -p "$port" -q 1 -t "t/$n" -m "$n"; done
queued 5
stop

step "upgrade"
dpkg-deb -R "$deb" "$work/newer"
sed -i 's/^Version: .*/&+newer/' "$work/newer/DEBIAN/control"
dpkg-deb -b "$work/newer" "$root/two.deb" >/dev/null
sum=$(sha256sum <"$root$config")
in_root dpkg -i /two.deb </dev/null
[ "$(sha256sum <"$root$config")" = "$sum" ] || die "the upgrade has changed the configuration"
start
queued 5
stop

step "remove keeps configuration and queue"
in_root dpkg -r holdfast </dev/null
hasnot /usr/bin/holdfast
has "$config"
in_root dpkg -i /two.deb </dev/null
queued 5

step "purge leaves nothing"
in_root dpkg -P holdfast </dev/null
for f in /usr/bin/holdfast /etc/holdfast /var/lib/holdfast /usr/share/doc/holdfast; do hasnot "$f"; done
[ ! -L "$root/etc/systemd/system/multi-user.target.wants/holdfast.service" ] || die "it is still enabled"
if in_root getent passwd holdfast; then die "the user is still there"; fi
if in_root getent group holdfast; then die "the group is still there"; fi
# installed_for ARCH DEB QEMU: QEMU is empty where it is not installed.
installed_for() {
	local arch=$1 deb=$2 qemu=$3 other=$work/root-$1
	step "install for $arch"
	cp -a "$base" "$other"
	cp "$deb" "$other/other.deb"
	chroot "$other" "${clean[@]}" dpkg --force-architecture -i /other.deb </dev/null
	chroot "$other" "${clean[@]}" id holdfast | grep -q dialout || die "the user holdfast is not in dialout"
	[ "$(dpkg-deb -f "$deb" Architecture)" = "$arch" ] || die "$deb is for $(dpkg-deb -f "$deb" Architecture)"
	if [ -n "$qemu" ]; then
		"$qemu" "$other/usr/bin/holdfast" version
		"$qemu" "$other/usr/bin/holdfast" check -c "$other$config"
	else
		echo "the program was not run: there is no qemu for $arch (Debian: qemu-user)"
	fi
	chroot "$other" "${clean[@]}" dpkg -P holdfast </dev/null
	[ ! -e "$other$config" ] || die "purge leaves $config"
}
for a in $archs; do
	case $a in
	"$arch") ;;
	arm64) installed_for "$a" "$(ls "$work"/one.out/*_"$a".deb)" "$(command -v qemu-aarch64 || command -v qemu-aarch64-static || true)" ;;
	armhf)
		# The processor of the first Pi.
		QEMU_CPU=arm1176 installed_for "$a" "$(ls "$work"/one.out/*_"$a".deb)" "$(command -v qemu-arm || command -v qemu-arm-static || true)"
		;;
	esac
done

cp -a "$base" "$work/systemd"
scripts/systemd-test.sh "$work/systemd" "$deb"
echo "package-test: all is well"
