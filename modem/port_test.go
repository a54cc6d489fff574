package modem

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// openPTY opens a pseudo terminal and its slave as a serial port.
func openPTY(t *testing.T) (master *os.File, name string, port io.ReadWriteCloser) {
	t.Helper()
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { master.Close() })
	port, err = openSerial(slave.Name(), 115200)
	if err != nil {
		t.Fatal(err)
	}
	slave.Close()
	t.Cleanup(func() { port.Close() })
	return master, slave.Name(), port
}

func TestAPTYWorksLikeAPort(t *testing.T) {
	master, _, port := openPTY(t)
	// Raw: no echo, no translation of line ends.
	if _, err := port.Write([]byte("AT\r\n\x03\x04\x1a\xff")); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 64)
	n, err := io.ReadAtLeast(master, buf, 8)
	if err != nil || string(buf[:n]) != "AT\r\n\x03\x04\x1a\xff" {
		t.Errorf("the far side got %q, %v", buf[:n], err)
	}
	master.Write([]byte("\r\nOK\r\n\x00\x11\x13"))
	n, err = io.ReadAtLeast(port, buf, 9)
	if err != nil || string(buf[:n]) != "\r\nOK\r\n\x00\x11\x13" {
		t.Errorf("we got %q, %v", buf[:n], err)
	}
}

// result runs f in the background and returns its error, or fails after 10 s.
func within(t *testing.T, f func() error) error {
	t.Helper()
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	select {
	case err := <-ch:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("it hangs")
		return nil
	}
}

func TestAHangUpAndACloseAreTwoErrors(t *testing.T) {
	master, name, port := openPTY(t)
	master.Close()
	err := within(t, func() error { _, err := port.Read(make([]byte, 8)); return err })
	if !errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), name) {
		t.Errorf("a hang-up gave %v", err)
	}

	_, _, port = openPTY(t)
	reading := make(chan error, 1)
	go func() { _, err := port.Read(make([]byte, 8)); reading <- err }()
	if err := port.Close(); err != nil {
		t.Error(err)
	}
	if err := within(t, func() error { return <-reading }); !errors.Is(err, os.ErrClosed) || errors.Is(err, io.EOF) {
		t.Errorf("Close gave the reader %v", err)
	}
	if _, err := port.Write([]byte("x")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a Write after Close gave %v", err)
	}
	if err := port.Close(); err != nil {
		t.Errorf("the second Close gave %v", err)
	}
}

func TestCloseUnblocksAWriteThatNobodyReads(t *testing.T) {
	_, _, port := openPTY(t)
	writing := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		junk := make([]byte, 1<<20)
		close(started)
		_, err := port.Write(junk)
		writing <- err
	}()
	<-started
	port.Close()
	if err := within(t, func() error { return <-writing }); err == nil {
		t.Error("a megabyte was written to nobody")
	}
}

func TestAPortIsOpenedByOneProgramOnly(t *testing.T) {
	_, name, port := openPTY(t)
	_, err := openSerial(name, 115200)
	if err == nil || !strings.Contains(err.Error(), "in use by another [[modem]] of this gateway") {
		t.Errorf("the second opening gave %v", err)
	}
	port.Close()
	again, err := openSerial(name, 115200)
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

func TestPortsThatCannotBeOpenedSayWhatToDo(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ port, words string }{
		{"/dev/ttyNONE7", "there is no port /dev/ttyNONE7"},
		{"/dev/ttyNONE7", "this machine"},
		{file, "not a serial port"},
		{"/dev/null", "not a serial port"},
	} {
		_, err := openSerial(c.port, 115200)
		if err == nil || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s gave %v", c.port, err)
		}
	}
}

// power_command is started while the port is open, and may leave something behind
// that would keep it.
func TestAProgramThatIsStartedDoesNotGetThePort(t *testing.T) {
	_, name, _ := openPTY(t)
	out, err := exec.Command("ls", "-l", "/proc/self/fd").Output()
	if err != nil {
		t.Skipf("the files of a process cannot be listed here: %v", err)
	}
	if strings.Contains(string(out), name+"\n") {
		t.Errorf("it has the port open:\n%s", out)
	}
}

// What the error says to write must be what the configuration takes.
func TestAPortWithoutLinesSaysWhatToWrite(t *testing.T) {
	master, _, port := openPTY(t)
	m := &Modem{o: Options{ResetLine: lineRTS}}
	for _, l := range []*link{{port: port}, {port: master}} {
		if err := m.pulse(t.Context(), l); err == nil || !strings.Contains(err.Error(), `set reset_line = "none"`) {
			t.Errorf("%T: %v", l.port, err)
		}
	}
}

func TestFlowControlCanBeSwitchedOn(t *testing.T) {
	master, slave, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo terminals here: %v", err)
	}
	defer master.Close()
	defer slave.Close()
	port, err := openSerial(slave.Name(), 115200)
	if err != nil {
		t.Fatal(err)
	}
	defer port.Close()
	on := func() (on bool) {
		if err := control(slave, func(fd int) error {
			t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
			on = err == nil && t.Cflag&unix.CRTSCTS != 0
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return on
	}
	if on() {
		t.Error("it is on from the start")
	}
	if err := port.SetFlowControl(true); err != nil || !on() {
		t.Errorf("switched on: %v, %v", on(), err)
	}
	if err := port.SetBaud(921600); err != nil || !on() {
		t.Errorf("after another rate: %v, %v", on(), err)
	}
	if err := port.SetFlowControl(false); err != nil || on() {
		t.Errorf("switched off: %v, %v", !on(), err)
	}
}
