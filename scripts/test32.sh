#!/usr/bin/env bash
# Tests the 32-bit builds: for 386, which an x86_64 kernel runs as it is, and for
# ARM under qemu-arm where that is installed. What cannot be run here is said.
set -euo pipefail
cd "$(dirname "$0")/.."

go=${GO:-go}
GO=$go scripts/patch-modules.sh
export CGO_ENABLED=0 GOFLAGS=-modfile=$PWD/build/mod/go.mod
try() { "$go" test -count=1 "$@"; }

# What counts and sizes with int, or reads bytes. The parts with hundreds of
# waits gain nothing from another width.
case $(uname -s)/$(uname -m) in
Linux/x86_64 | Linux/i?86)
	echo "386:"
	GOARCH=386 try ./storage/... ./edge/packet ./edge/topic ./modem/at
	GOARCH=386 try -run '^Fuzz|Plan|Alias|Adaptive|Exactly' ./bridge
	;;
*) echo "386: not tested, this machine does not run it" ;;
esac

qemu=$(command -v qemu-arm || command -v qemu-arm-static || true)
if [ -z "$qemu" ]; then
	echo "ARM: not tested, there is no qemu-arm (Debian: qemu-user)"
	exit 0
fi
# The processors of a Pi Zero and of a Pi 2, and what writes many tables there.
# Tests that start themselves again as another process are left out: the kernel
# would not find qemu.
while read -r arm cpu; do
	echo "ARMv$arm ($cpu in qemu):"
	export GOARCH=arm GOARM=$arm QEMU_CPU=$cpu
	try -exec "$qemu" -run '^(TestBulk|TestSelfCheck|TestBadger$|TestRangeSet|Fuzz)' ./storage
	try -exec "$qemu" ./edge/packet ./modem/at
done <<-END
	6 arm1176
	7 cortex-a7
END
