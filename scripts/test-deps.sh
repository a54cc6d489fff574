#!/usr/bin/env bash
# Installs what the tests need besides Go: real brokers and clients, and a C
# compiler for the race detector. Starts no service.
set -euo pipefail

packages=(mosquitto mosquitto-clients python3-paho-mqtt libpaho-mqtt-dev gcc libc6-dev)

if ! command -v dpkg-query >/dev/null; then
	echo "This is no Debian. The tests need: ${packages[*]} (under the names of this system)." >&2
	for tool in mosquitto mosquitto_pub mosquitto_sub python3 gcc; do
		PATH=$PATH:/usr/sbin:/usr/local/sbin command -v "$tool" >/dev/null || { echo "missing: $tool" >&2; exit 1; }
	done
	exit 0
fi

missing=()
for p in "${packages[@]}"; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing+=("$p")
done
[ ${#missing[@]} = 0 ] && exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
	if ! sudo -n true 2>/dev/null; then
		echo "The tests need these packages: ${missing[*]}" >&2
		echo "Install them first: sudo apt-get install ${missing[*]}" >&2
		exit 1
	fi
	as_root=(sudo -n)
fi

# Debian starts a broker as soon as it is installed, unless this file says that
# nothing may be started.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
	"${as_root[@]}" chmod 755 "$policy"
	trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120)
echo "installing ${missing[*]}"
# The lists of a fresh image are empty; old ones name files that are gone.
"${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null 2>&1 || {
	"${apt[@]}" update </dev/null
	"${apt[@]}" install -y --no-install-recommends "${missing[@]}" </dev/null
}
