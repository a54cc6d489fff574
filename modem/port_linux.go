package modem

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// setFlowControl switches RTS/CTS on or off. The serial library switches it off
// when it opens a port and has no way to switch it on.
func setFlowControl(fd int, on bool) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Cflag &^= unix.CRTSCTS
	if on {
		t.Cflag |= unix.CRTSCTS
	}
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// keepFromPrograms marks every descriptor of this process on the device of fd as one
// that a program that it starts does not get.
func keepFromPrograms(fd int) error {
	var port unix.Stat_t
	if err := unix.Fstat(fd, &port); err != nil {
		return err
	}
	entries, err := os.ReadDir("/proc/self/fd")
	for _, e := range entries {
		var st unix.Stat_t
		if n, err := strconv.Atoi(e.Name()); err == nil && unix.Fstat(n, &st) == nil && st.Rdev == port.Rdev && st.Ino == port.Ino && st.Dev == port.Dev {
			unix.CloseOnExec(n)
		}
	}
	return err
}
