package modem

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"go.bug.st/serial"
	"golang.org/x/sys/unix"
)

// serialPort is a serial port as the AT engine wants it: Close unblocks Read
// and Write, a hang-up and a Close are two different errors, and nobody else
// can have the port.
//
// Two descriptors are open on it. go.bug.st/serial sets the rate and raw mode,
// which belong to the port and not to a descriptor, and is used for nothing
// else: it reports a hang-up and its own Close with the same error, its Write
// after Close can reach another file that has got the number of the descriptor,
// and it gives no access to the descriptor. Bytes go through an os.File, which
// is opened first (the library makes the port exclusive) and is safe in all of
// these. It carries the lock and the flow control.
type serialPort struct {
	name string
	file *os.File
	mode serial.Port
	flow bool
	once sync.Once
	err  error // of Close
}

// openSerial opens a UART, a USB serial device or a pty with 8 data bits, no
// parity, 1 stop bit.
func openSerial(name string, baud int) (*serialPort, error) {
	file, err := os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, portError(name, err)
	}
	if err := control(file, func(fd int) error {
		if _, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); errors.Is(err, unix.ENOTTY) {
			return err
		}
		return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	}); err != nil {
		file.Close()
		return nil, portError(name, err)
	}
	// Programs that lock in another way, or not at all, would get half of what
	// the module says; and root is not kept out by TIOCEXCL. The other side of
	// a pty may well have this one open.
	if real, err := filepath.EvalSymlinks(name); err == nil && !strings.HasPrefix(real, "/dev/pts/") {
		if h, found := theseProcesses().holding(real); found {
			file.Close()
			return nil, inUse(name, h, unix.EBUSY)
		}
	}
	mode, err := openMode(file, name, &serial.Mode{BaudRate: baud, DataBits: 8})
	if err != nil {
		file.Close()
		return nil, portError(name, err)
	}
	p := &serialPort{name: name, file: file, mode: mode}
	// A module with DTR low may sleep or drop to command mode; a port without
	// modem lines (a pty, a three-wire UART) has none to set.
	if err := mode.SetDTR(true); err != nil && !noSuchLine(err) {
		p.Close()
		return nil, portError(name, err)
	}
	_ = mode.ResetInputBuffer() // what came before is not an answer to us
	return p, nil
}

// openMode opens the port with the library, which leaves its descriptor to every
// program that is started: power_command may leave one behind, and the port would be
// in use.
func openMode(file *os.File, name string, mode *serial.Mode) (serial.Port, error) {
	syscall.ForkLock.RLock() // no program is started in between
	defer syscall.ForkLock.RUnlock()
	port, err := serial.Open(name, mode)
	if err == nil {
		_ = control(file, keepFromPrograms)
	}
	return port, err
}

func noSuchLine(err error) bool {
	return errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EIO)
}

func control(f *os.File, do func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var doErr error
	if err := raw.Control(func(fd uintptr) { doErr = do(int(fd)) }); err != nil {
		return err
	}
	return doErr
}

// SetBaud changes the rate, and drops what came at the old one.
func (p *serialPort) SetBaud(baud int) error {
	err := p.mode.SetMode(&serial.Mode{BaudRate: baud, DataBits: 8})
	if err == nil && p.flow { // the library has switched it off
		err = p.SetFlowControl(true)
	}
	_ = p.mode.ResetInputBuffer()
	return err
}

// SetFlowControl switches RTS/CTS on or off. The library can do neither.
func (p *serialPort) SetFlowControl(on bool) error {
	err := control(p.file, func(fd int) error { return setFlowControl(fd, on) })
	if err == nil {
		p.flow = on
	}
	return err
}

// The lines that a reset may be wired to.
const (
	lineDTR = "dtr"
	lineRTS = "rts"
)

// SetLine switches DTR or RTS. A pty and a three-wire UART have none.
func (p *serialPort) SetLine(line string, on bool) error {
	set := p.mode.SetDTR
	if line == lineRTS {
		set = p.mode.SetRTS
	}
	if err := set(on); err != nil {
		return fmt.Errorf("%s has no line %s (%w); set reset_line = \"none\"", p.name, line, err)
	}
	return nil
}

// Read returns an error that wraps io.EOF when the port hangs up, and one that
// wraps os.ErrClosed after Close.
func (p *serialPort) Read(b []byte) (int, error) {
	n, err := p.file.Read(b)
	return n, p.wrap(err)
}

func (p *serialPort) Write(b []byte) (int, error) {
	n, err := p.file.Write(b)
	return n, p.wrap(err)
}

func (p *serialPort) wrap(err error) error {
	switch {
	case err == nil, errors.Is(err, os.ErrClosed):
		return err
	case errors.Is(err, io.EOF), errors.Is(err, syscall.EIO), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("%s was unplugged or hung up (%w)", p.name, errors.Join(io.EOF, err))
	}
	return err
}

// Close closes both descriptors, once.
func (p *serialPort) Close() error {
	p.once.Do(func() {
		// The kernel waits half a minute for what the far side holds back.
		if p.flow {
			_ = control(p.file, func(fd int) error { return setFlowControl(fd, false) })
			_ = p.mode.ResetOutputBuffer()
		}
		err := p.file.Close()
		p.err = errors.Join(err, p.mode.Close())
	})
	return p.err
}

// busy is the error of a port that somebody has already.
func busy(name string, err error) error {
	all := theseProcesses()
	real := name
	if at, err := filepath.EvalSymlinks(name); err == nil {
		real = at
	}
	if all.has(all.self, real) {
		return fmt.Errorf("%s is in use by another [[modem]] of this gateway; give each its own port: %w", name, err)
	}
	h, found := all.holding(real)
	if !found {
		h, _ = all.suspect(real)
	}
	return inUse(name, h, err)
}

// portError says what to do about a port that cannot be opened.
func portError(name string, err error) error {
	var se *serial.PortError
	if errors.As(err, &se) {
		switch se.Code() {
		case serial.PortBusy:
			err = unix.EBUSY
		case serial.PermissionDenied:
			err = fs.ErrPermission
		case serial.InvalidSpeed:
			return fmt.Errorf("%s cannot run at this baud rate; set another baud in [[modem]]: %w", name, err)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("there is no port %s; %s; check that the module is plugged in and that the UART is enabled "+
			"(Raspberry Pi: enable_uart=1 in config.txt): %w", name, namesOf(thisMachine().ports()), err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("no permission for %s; add the gateway's user to the group dialout: %w", name, err)
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EWOULDBLOCK):
		return busy(name, err)
	case errors.Is(err, unix.ENOTTY):
		return fmt.Errorf("%s is not a serial port; %s: %w", name, namesOf(thisMachine().ports()), err)
	}
	return fmt.Errorf("opening %s: %w", name, err)
}
