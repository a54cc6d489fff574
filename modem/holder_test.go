package modem

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// TestHelperHoldsAPort is no test: it is another program that has a port.
func TestHelperHoldsAPort(t *testing.T) {
	name := os.Getenv("HOLDFAST_TEST_PORT")
	if name == "" {
		t.Skip("it is run by others")
	}
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	fmt.Println("held", err)
	_, _ = io.Copy(io.Discard, os.Stdin) // until the one who started it is satisfied
}

func TestTheProgramThatHasThePortIsNamed(t *testing.T) {
	t.Parallel()
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer master.Close()
	slave.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), modemManager)
	if err := os.Symlink(self, program); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^TestHelperHoldsAPort$")
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_PORT="+slave.Name())
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held <nil>\n" {
		t.Fatalf("%q, %v", line, err)
	}
	_, err = openSerial(slave.Name(), 115200)
	who := fmt.Sprintf("%s is in use by ModemManager (process %d); ", slave.Name(), cmd.Process.Pid)
	const advice = "run sudo systemctl mask --now ModemManager; else write the line"
	if err == nil || !strings.Contains(err.Error(), who+"if nothing else needs it, "+advice) {
		t.Errorf("it was said: %v", err)
	}
}

func TestWhatToDoAboutTheProgramThatHasThePort(t *testing.T) {
	for _, c := range []struct{ program, advice string }{
		{modemManager, `SUBSYSTEM=="tty", KERNEL=="ttyTEST9", ENV{ID_MM_PORT_IGNORE}="1" into /etc/udev/rules.d/`},
		{"agetty", "sudo systemctl disable --now serial-getty@ttyTEST9"},
		{"holdfast", "sudo systemctl stop holdfast"},
		{"minicom", "stop it first"},
		{"", "fuser -v /dev/ttyTEST9"},
	} {
		if err := inUse("/dev/ttyTEST9", holder{name: c.program, pid: 9}, unix.EBUSY); !strings.Contains(err.Error(), c.advice) {
			t.Errorf("about %q it was said: %v", c.program, err)
		}
	}
}

// fakeProcesses is a fake /proc and what belongs to it.
func fakeProcesses(t *testing.T) processTree {
	dir := t.TempDir()
	return processTree{proc: filepath.Join(dir, "proc"), cgroup: filepath.Join(dir, "cgroup"), lock: filepath.Join(dir, "lock"), self: 7}
}

func put(t *testing.T, text string, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestWhoHasAPortIsFoundAsFarAsCanBeSeen(t *testing.T) {
	const port = "/dev/ttyTEST9"
	process := func(p processTree, pid int, comm, cmdline string) {
		put(t, comm+"\n", p.proc, strconv.Itoa(pid), "comm")
		put(t, cmdline, p.proc, strconv.Itoa(pid), "cmdline")
	}
	for _, c := range []struct {
		name  string
		set   func(p processTree)
		words string // "" is nobody
	}{
		{"nobody", func(p processTree) { process(p, 7, "holdfast", "holdfast\x00ttyTEST9") }, ""},
		{"a descriptor", func(p processTree) {
			process(p, 12, "pppd", "pppd\x00call\x00lte")
			put(t, "", p.proc, "12/fd/0")
			if err := os.Symlink(port, filepath.Join(p.proc, "12/fd/5")); err != nil {
				t.Fatal(err)
			}
		}, "pppd (process 12)"},
		{"a lock", func(p processTree) {
			process(p, 12, "minicom", "minicom")
			put(t, "        12\n", p.lock, "LCK..ttyTEST9")
		}, "minicom (process 12)"},
		{"a lock of one that has ended", func(p processTree) { put(t, "12\n", p.lock, "LCK..ttyTEST9") }, ""},
		{"a lock that is none", func(p processTree) { put(t, "\x0c\x00\x00\x00", p.lock, "LCK..ttyTEST9") }, ""},
		{"a command line", func(p processTree) {
			process(p, 11, "ModemManager", "/usr/sbin/ModemManager")
			process(p, 12, "agetty", "/sbin/agetty\x00-o\x00ttyTEST9\x00115200")
		}, "another program, probably agetty (process 12), which runs here"},
		{"ModemManager runs", func(p processTree) { process(p, 11, "ModemManager", "/usr/sbin/ModemManager") },
			"another program, probably ModemManager (process 11), which runs here"},
		{"only its control group is seen", func(p processTree) { put(t, "11\n", p.cgroup, "ModemManager.service/cgroup.procs") },
			"another program, probably ModemManager, which runs here"},
		{"the login prompt of the port", func(p processTree) {
			put(t, "11\n", p.cgroup, `system-serial\x2dgetty.slice/serial-getty@ttyTEST9.service/cgroup.procs`)
		}, "another program, probably agetty, which runs here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := fakeProcesses(t)
			c.set(p)
			h, found := p.holding(port)
			if !found {
				h, found = p.suspect(port)
			}
			if found != (c.words != "") || found && h.String() != c.words {
				t.Errorf("%v, %q", found, h)
			}
		})
	}
}
