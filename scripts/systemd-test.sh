#!/usr/bin/env bash
# Boots the systemd of a small Debian in namespaces of its own, installs the package
# there, and looks at what the unit promises: ready when it answers, a watchdog that
# is fed and bites, reload, restart after a kill, a stop in time.
#
#     scripts/systemd-test.sh ROOT DEB     # ROOT is used up; package-test.sh makes one
#
# Needs root and cgroup 2; says so and ends well where it cannot be done.
set -euo pipefail

root=$1 deb=$2
unit=holdfast.service
step() { echo "== systemd: $*"; }
skip() {
	echo "systemd-test: skipped: $*"
	exit 0
}
die() {
	echo "systemd-test: $*" >&2
	[ -z "$init" ] || inside journalctl -u "$unit" --no-pager -n 30 >&2 || true
	exit 1
}
init=
[ -x "$root/lib/systemd/systemd" ] || skip "$root has no systemd"
cgroups=$(findmnt -nt cgroup2 -o TARGET | head -1)
[ -n "$cgroups" ] || skip "no cgroup 2 is mounted here"
group=$cgroups/holdfast-test-$$
log=$(mktemp)
mkdir "$group" 2>/dev/null || skip "no cgroup can be made below $cgroups"
finish() {
	[ -z "$init" ] || kill -9 "$init" 2>/dev/null || true
	wait
	rm -f "$log"
	until find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; do pause; done
}
pause() { read -r -t 0.1 <> <(:) || true; }
trap finish EXIT
unshare --pid --mount --cgroup --uts --ipc --net --fork true 2>/dev/null || skip "no namespaces can be made here"

# boot becomes the first process of the small Debian.
boot() {
	echo "$BASHPID" >"$group/cgroup.procs"
	# shellcheck disable=SC2016
	exec unshare --pid --mount --cgroup --uts --ipc --net --fork --kill-child --propagation private bash -ec '
		mount --bind "$1" "$1"
		cd "$1"
		mount -t proc proc proc
		mount -t sysfs sysfs sys
		mount -t cgroup2 cgroup2 sys/fs/cgroup
		mount -t tmpfs tmpfs run
		mount -t tmpfs tmpfs tmp
		mount -t tmpfs -o mode=755 tmpfs dev
		for d in null zero full random urandom tty; do
			touch "dev/$d"
			mount --bind "/dev/$d" "dev/$d"
		done
		mkdir dev/shm dev/pts
		mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
		ln -s pts/ptmx dev/ptmx
		mkdir -p old
		pivot_root . old
		umount -l old
		exec env -i container=holdfast-test PATH=/usr/sbin:/usr/bin:/sbin:/bin \
			/lib/systemd/systemd --system --show-status=0 --unit=multi-user.target' boot "$root" >"$log" 2>&1
}
inside() {
	nsenter -t "$init" -a -r -w env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive "$@" </dev/null
}
show() { inside systemctl show "$unit" --value -p "$1"; }
# until_true WORDS COMMAND... waits a minute at most.
until_true() {
	local what=$1
	shift
	for _ in $(seq 600); do
		if "$@" >/dev/null 2>&1; then return; fi
		pause
	done
	die "not within a minute: $what"
}
another_process() { [ "$(show ActiveState)" = active ] && [ "$(show MainPID)" != "$pid" ]; }
fed_again() { [ "$(show WatchdogTimestampMonotonic)" != "$fed" ]; }
queued() { inside holdfast queue ls | grep -E '^cloud +5 '; }

step "boot"
boot &
outer=$!
first_process() { init=$(pgrep -P "$outer" -x systemd); }
for _ in $(seq 600); do
	if first_process; then break; fi
	kill -0 "$outer" 2>/dev/null || skip "systemd does not boot in namespaces here: $(tail -1 "$log")"
	pause
done
until_true "systemd has booted" inside systemctl is-system-running --wait

step "install: it is ready when the installation has ended"
cp "$deb" "$root/holdfast.deb"
inside dpkg -i /holdfast.deb >/dev/null
[ "$(show ActiveState)" = active ] || die "it is $(show ActiveState) after the installation"
inside holdfast status >/dev/null || die "it does not answer"

step "locked up"
pid=$(show MainPID)
facts=$(inside cat "/proc/$pid/status")
for want in 'NoNewPrivs:.1' 'Seccomp:.2' 'CapBnd:.0*$' 'CapEff:.0*$'; do
	grep -Eq "^$want" <<<"$facts" || die "not $want"
done
if grep -Eq '^Uid:.0' <<<"$facts"; then die "it runs as root"; fi
inside systemd-analyze security --threshold=20 --no-pager "$unit" >/dev/null || die "its exposure is above 2.0"

step "init and reload"
config=/etc/holdfast/gateway.toml
first=(holdfast init --yes --id barn-7 --upstream tcp://127.0.0.1:1)
inside "${first[@]}" >/dev/null || die "init does not replace what the package has installed"
inside systemctl reload "$unit" || die "it cannot be reloaded"
until_true "the new bridge is there" inside sh -c 'holdfast status | grep -q "bridge  cloud"'
[ "$(show MainPID)" = "$pid" ] || die "a reload has started it anew"
echo 'max_byte = 3' >>"$root$config"
if inside systemctl reload "$unit" 2>/dev/null; then die "a configuration with a mistake was reloaded"; fi
inside journalctl -u "$unit" --no-pager | grep 'max_byte: there is no such key' >/dev/null || die "the journal does not name the mistake"
inside "${first[@]}" --force >/dev/null
[ "$(show MainPID)" = "$pid" ] || die "a mistake has ended it"
inside systemctl reload "$unit" || die "it cannot be reloaded any more"

step "kill -9"
for n in 1 2 3 4 5; do inside holdfast pub -q 1 -t "t/$n" -m "$n"; done
inside sh -c "kill -9 $pid"
until_true "it is there again after a kill" another_process
[ "$(show NRestarts)" = 1 ] || die "$(show NRestarts) restarts"
until_true "the five messages are there" queued

step "watchdog"
mkdir -p "$root/etc/systemd/system/$unit.d"
printf '[Service]\nWatchdogSec=3s\n' >"$root/etc/systemd/system/$unit.d/soon.conf"
inside systemctl daemon-reload
inside systemctl restart "$unit"
pid=$(show MainPID)
for _ in 1 2 3; do
	fed=$(show WatchdogTimestampMonotonic)
	until_true "the watchdog is fed" fed_again
done
[ "$(show MainPID)" = "$pid" ] || die "the watchdog has bitten a healthy one"
inside sh -c "kill -STOP $pid"
until_true "one that is stuck is started anew" another_process
inside journalctl -u "$unit" --no-pager | grep 'Watchdog timeout' >/dev/null || die "it was not the watchdog"
until_true "the five messages are there" queued

step "upgrade and stop"
pid=$(show MainPID)
inside dpkg -i /holdfast.deb >/dev/null
[ "$(show ActiveState)" = active ] || die "it is $(show ActiveState) after the upgrade"
[ "$(show MainPID)" != "$pid" ] || die "the old program still runs after the upgrade"
inside systemctl stop "$unit"
[ "$(show Result) $(show ExecMainStatus)" = "success 0" ] || die "it ended with $(show Result) $(show ExecMainStatus)"
inside systemctl start "$unit"

step "remove, install again, purge"
inside dpkg -r holdfast >/dev/null
[ "$(show ActiveState)" = inactive ] || die "it is $(show ActiveState) after it was removed"
inside dpkg -i /holdfast.deb >/dev/null
[ "$(show ActiveState)" = active ] || die "it is $(show ActiveState) after it was installed again"
until_true "the five messages are there" queued
inside systemctl disable --now "$unit" 2>/dev/null
inside dpkg -i /holdfast.deb >/dev/null
[ "$(show ActiveState)" = inactive ] || die "an upgrade starts one that was disabled"
inside systemctl enable "$unit" 2>/dev/null
inside dpkg -P holdfast >/dev/null
[ ! -L "$root/etc/systemd/system/multi-user.target.wants/$unit" ] || die "purge leaves it enabled"
echo "systemd-test: all is well"
