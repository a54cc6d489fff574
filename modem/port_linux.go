package modem

import "golang.org/x/sys/unix"

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
