package sim

import (
	"os"

	"golang.org/x/sys/unix"
)

const cbaud = unix.CBAUD

func unixTermios(f *os.File) (*unix.Termios, error) {
	return unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
}

func setUnixTermios(f *os.File, t *unix.Termios) error {
	return unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, t)
}
