package modem

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// processTree is where the system shows who runs, and who has locked a port.
type processTree struct {
	proc   string // /proc
	cgroup string // /sys/fs/cgroup/system.slice: visible where other processes are not
	lock   string // /var/lock
	self   int    // our own process
}

func theseProcesses() processTree {
	return processTree{proc: "/proc", cgroup: "/sys/fs/cgroup/system.slice", lock: "/var/lock", self: os.Getpid()}
}

// holder is a program that has a port, or may have it.
type holder struct {
	name    string
	pid     int  // 0 if it is not known
	guessed bool // it runs, and nobody was seen with the port
}

func (h holder) String() string {
	s := h.name
	if h.pid != 0 {
		s = fmt.Sprintf("%s (process %d)", s, h.pid)
	}
	if h.guessed {
		s = "another program, probably " + s + ", which runs here"
	}
	return s
}

// holding returns who has the port open, or has left a lock for it. A user who may
// not look into other processes sees only the lock.
func (t processTree) holding(port string) (h holder, found bool) {
	if real, err := filepath.EvalSymlinks(port); err == nil {
		port = real
	}
	if pid := t.uucpLock(port); pid != 0 {
		return holder{name: t.comm(pid), pid: pid}, true
	}
	t.each(func(pid int) bool {
		if t.has(pid, port) {
			h, found = holder{name: t.comm(pid), pid: pid}, true
		}
		return !found
	})
	return h, found
}

// has reports whether a process has the port open, as far as can be seen.
func (t processTree) has(pid int, port string) bool {
	fds := filepath.Join(t.proc, strconv.Itoa(pid), "fd")
	entries, _ := os.ReadDir(fds)
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(fds, e.Name())); err == nil && to == port {
			return true
		}
	}
	return false
}

// suspect is the program that has the port most probably, of which nothing can be
// seen but that it runs: one with the port on its command line, the login prompt
// of the port, ModemManager.
func (t processTree) suspect(port string) (h holder, found bool) {
	base := filepath.Base(port)
	t.each(func(pid int) bool {
		line, _ := os.ReadFile(filepath.Join(t.proc, strconv.Itoa(pid), "cmdline"))
		for _, arg := range strings.Split(string(line), "\x00")[1:] {
			if arg == port || arg == base {
				h, found = holder{name: t.comm(pid), pid: pid, guessed: true}, true
				return false
			}
		}
		if t.comm(pid) == modemManager {
			h, found = holder{name: modemManager, pid: pid, guessed: true}, true
		}
		return true
	})
	if found {
		return h, true
	}
	for _, unit := range []struct{ program, name string }{
		{"agetty", `system-serial\x2dgetty.slice/serial-getty@` + base + ".service"},
		{modemManager, "ModemManager.service"},
	} {
		if pids, _ := os.ReadFile(filepath.Join(t.cgroup, unit.name, "cgroup.procs")); len(pids) > 0 {
			return holder{name: unit.program, guessed: true}, true
		}
	}
	return holder{}, false
}

const modemManager = "ModemManager"

// each calls look for every process but our own, until it returns false.
func (t processTree) each(look func(pid int) bool) {
	entries, _ := os.ReadDir(t.proc)
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != t.self && !look(pid) {
			return
		}
	}
}

// comm is the name of a process.
func (t processTree) comm(pid int) string {
	name, err := os.ReadFile(filepath.Join(t.proc, strconv.Itoa(pid), "comm"))
	if err != nil {
		return "a program"
	}
	return strings.TrimSpace(string(name))
}

// uucpLock is the process that has locked the port as pppd and minicom do; 0 if
// none does, or the one that did has ended.
func (t processTree) uucpLock(port string) int {
	b, err := fs.ReadFile(os.DirFS(t.lock), "LCK.."+filepath.Base(port))
	if err != nil || len(b) > 64 {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid <= 1 || pid == t.self {
		return 0
	}
	if _, err := os.Stat(filepath.Join(t.proc, strconv.Itoa(pid))); err != nil {
		return 0
	}
	return pid
}

// advice is what to do about the program that has a port.
func (h holder) advice(port string) string {
	if real, err := filepath.EvalSymlinks(port); err == nil {
		port = real
	}
	base := filepath.Base(port)
	switch {
	case h.name == modemManager:
		which := fmt.Sprintf("KERNEL==%q", base)
		for _, p := range thisMachine().ports() {
			if p.Name == port && p.VID != "" {
				which = fmt.Sprintf("ATTRS{idVendor}==%q, ATTRS{idProduct}==%q", p.VID, p.PID)
			}
		}
		return fmt.Sprintf("if nothing else needs it, run sudo systemctl mask --now ModemManager; else write the line SUBSYSTEM==\"tty\", %s, "+
			"ENV{ID_MM_PORT_IGNORE}=\"1\" into /etc/udev/rules.d/78-holdfast.rules, and run sudo udevadm control --reload, "+
			"sudo udevadm trigger, sudo systemctl restart ModemManager", which)
	case strings.Contains(h.name, "getty"), h.name == "login":
		return fmt.Sprintf("run sudo systemctl disable --now serial-getty@%s, and take console=%[1]s (or serial0) out of the kernel's command line", base)
	case strings.HasPrefix(h.name, "holdfast"):
		return "stop that one first: sudo systemctl stop holdfast"
	case h.name == "":
		return fmt.Sprintf("sudo fuser -v %s shows it", port)
	}
	return "stop it first"
}

// inUse is the error of a port that another program has.
func inUse(port string, h holder, err error) error {
	if h.name == "" {
		return fmt.Errorf("%s is in use by another program (a second gateway? a getty, ModemManager, minicom?); %s, stop it: %w", port, h.advice(port), err)
	}
	return fmt.Errorf("%s is in use by %s; %s: %w", port, h, h.advice(port), err)
}
