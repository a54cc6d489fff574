package sim

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// txBuffer bounds what waits for the line. Beyond it output is lost, as it
	// is on a UART without flow control whose host does not listen.
	txBuffer = 64 << 10
	// hostPatience is how long a write waits for a host that does not read.
	// After that the host counts as absent until it reads again.
	hostPatience = 500 * time.Millisecond
)

// chunk is what one read of the line gave: to the firmware, one DMA transfer.
type chunk struct {
	b []byte
	// sent is how far the output had been transmitted when it came.
	sent int64
}

// uart is the module's serial port: the master side of a pseudo terminal, and
// the slave kept open so that the host may come and go without an EIO.
type uart struct {
	path          string
	master, slave *os.File
	// baud is the speed that the line is held to, 0 for none. rate is the
	// speed that the module believes in. Set by the engine (AT+IPR).
	baud, rate atomic.Int64
	// sent counts the bytes given to the line; it is raised before the write,
	// since the host may answer before the write has returned.
	sent atomic.Int64

	mu     sync.Mutex
	out    []byte        // waits for the line
	queued int64         // bytes ever accepted, those discarded included
	wake   chan struct{} // capacity 1: out is not empty
	once   sync.Once
	err    error
}

func openUART(baud int) (*uart, error) {
	// Non-blocking from the first moment, so that the runtime's poller takes
	// it: a read must end when Close is called, a write must have a deadline.
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("sim: open a pseudo terminal: %w", err)
	}
	master := os.NewFile(uintptr(fd), "/dev/ptmx")
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("sim: unlock the pseudo terminal: %w", err)
	}
	path := "/dev/pts/" + strconv.FormatUint(uint64(n), 10)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err == nil {
		err = makeRaw(slave)
	}
	if err != nil {
		master.Close()
		return nil, fmt.Errorf("sim: open %s: %w", path, err)
	}
	u := &uart{path: path, master: master, slave: slave, wake: make(chan struct{}, 1)}
	u.baud.Store(int64(baud))
	u.rate.Store(int64(baud))
	if baud == 0 {
		u.rate.Store(115200)
	}
	return u, nil
}

// setBaud is AT+IPR; an unpaced line stays one.
func (u *uart) setBaud(n int) {
	u.rate.Store(int64(n))
	if n > 0 && u.baud.Load() > 0 {
		u.baud.Store(int64(n))
	}
}

// hostBaud is the speed that the host has set on its side, as a termios code.
func (u *uart) hostBaud() (code uint32) {
	c, err := u.slave.SyscallConn()
	if err != nil {
		return 0
	}
	_ = c.Control(func(fd uintptr) {
		if t, err := unix.IoctlGetTermios(int(fd), unix.TCGETS); err == nil {
			code = t.Cflag & unix.CBAUD
		}
	})
	return code
}

// makeRaw is cfmakeraw(3): no echo, no line editing, no signals, eight bits.
func makeRaw(f *os.File) error {
	c, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ioErr error
	err = c.Control(func(fd uintptr) {
		var t *unix.Termios
		if t, ioErr = unix.IoctlGetTermios(int(fd), unix.TCGETS); ioErr != nil {
			return
		}
		t.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		t.Oflag &^= unix.OPOST
		t.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		t.Cflag &^= unix.CSIZE | unix.PARENB
		t.Cflag |= unix.CS8
		t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
		ioErr = unix.IoctlSetTermios(int(fd), unix.TCSETS, t)
	})
	return errors.Join(err, ioErr)
}

// put queues b for the line and returns the offset of its end in the output.
func (u *uart) put(b []byte) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.out)+len(b) > txBuffer {
		return u.queued
	}
	u.out = append(u.out, b...)
	u.queued += int64(len(b))
	select {
	case u.wake <- struct{}{}:
	default:
	}
	return u.queued
}

// waiting is how much was put and not transmitted.
func (u *uart) waiting() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.out)
}

// cut discards what has not been transmitted: the power is gone.
func (u *uart) cut() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.sent.Add(int64(len(u.out)))
	u.out = nil
}

func (u *uart) take(n int) []byte {
	u.mu.Lock()
	defer u.mu.Unlock()
	n = min(n, len(u.out))
	b := u.out[:n:n]
	u.out = u.out[n:]
	return b
}

// readable reports whether the host has written something that was not read yet.
func (u *uart) readable() (yes bool) {
	c, err := u.master.SyscallConn()
	if err != nil {
		return false
	}
	_ = c.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, _ := unix.Poll(fds, 0)
		yes = n > 0
	})
	return yes
}

// read is the receiving goroutine.
func (u *uart) read(ctx context.Context, to chan<- chunk, st *stats) {
	var p pace
	buf := make([]byte, 4096)
	for {
		baud := u.baud.Load()
		idle := baud > 0 && !u.readable()
		n, err := u.master.Read(buf[:p.transfer(baud)])
		if n > 0 {
			c := chunk{append([]byte(nil), buf[:n]...), u.sent.Load()}
			st.addUART(n, 0, 0)
			if !p.wait(ctx, n, baud, idle) {
				return
			}
			select {
			case to <- c:
			case <-ctx.Done():
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// write is the transmitting goroutine.
func (u *uart) write(ctx context.Context, st *stats, heard func([]byte)) {
	var p pace
	patience := hostPatience
	idle := true
	for {
		baud := u.baud.Load()
		b := u.take(p.transfer(baud))
		if len(b) == 0 {
			idle = true
			select {
			case <-u.wake:
				continue
			case <-ctx.Done():
				return
			}
		}
		if !p.wait(ctx, len(b), baud, idle) {
			return
		}
		idle = false
		u.sent.Add(int64(len(b)))
		_ = u.master.SetWriteDeadline(time.Now().Add(patience))
		n, err := u.master.Write(b)
		st.addUART(0, n, len(b)-n)
		if heard != nil && n > 0 {
			heard(b[:n])
		}
		switch {
		case err == nil:
			patience = hostPatience
		case errors.Is(err, os.ErrDeadlineExceeded):
			patience = time.Millisecond
		default:
			return
		}
	}
}

func (u *uart) close() error {
	u.once.Do(func() { u.err = errors.Join(u.master.Close(), u.slave.Close()) })
	return u.err
}
