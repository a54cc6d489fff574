package bridge

import (
	"context"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// tcpUserTimeout is how long what was sent may stay unacknowledged by the other
// side's TCP before the kernel ends the connection (RFC 5482, tcp(7)): a link
// that has died behind a NAT is found by the next publish, not by the kernel's
// own quarter of an hour.
const tcpUserTimeout = time.Minute

// BoardDialer is the Dialer over the board's own network. If iface is not empty,
// connections go over the interface of that name only, whatever the routes say
// (SO_BINDTODEVICE, socket(7)); names are looked up by the board as ever.
//
// TCP's own keep-alive is off: MQTT tests the link, and testing it twice costs
// data.
func BoardDialer(iface string) Dialer {
	d := &net.Dialer{KeepAlive: -1, Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(tcpUserTimeout/time.Millisecond)); failed != nil {
				failed = os.NewSyscallError("TCP_USER_TIMEOUT", failed)
				return
			}
			if iface != "" {
				failed = os.NewSyscallError("SO_BINDTODEVICE", unix.BindToDevice(int(fd), iface))
			}
		})
		if err != nil {
			return err
		}
		return failed
	}}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := d.DialContext(ctx, network, address)
		if err != nil && iface != "" {
			return nil, &interfaceError{iface, err}
		}
		return c, err
	}
}

// interfaceError tells over which interface a connection was tried.
type interfaceError struct {
	iface string
	err   error
}

func (e *interfaceError) Error() string { return fmt.Sprintf("over interface %s: %v", e.iface, e.err) }
func (e *interfaceError) Unwrap() error { return e.err }
