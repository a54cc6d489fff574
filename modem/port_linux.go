package modem

import "golang.org/x/sys/unix"

// setFlowControl switches RTS/CTS on. The serial library switches it off when
// it opens a port and has no way to switch it on.
func setFlowControl(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Cflag |= unix.CRTSCTS
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}
