package gateway

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/configs"
	"holdfast/edge"
)

// listen opens every listener before it serves the first: an address that is
// taken is an error at start, not a log line.
func (g *Gateway) listen() error {
	var lns []net.Listener
	for _, l := range g.cfg.Listeners {
		ln, err := openListener(l, g.log.With("part", "broker"))
		if err != nil {
			for _, ln := range lns {
				ln.Close()
			}
			return err
		}
		lns = append(lns, ln)
	}
	for i, ln := range lns {
		g.addresses = append(g.addresses, ln.Addr())
		g.log.Info("listening", "address", ln.Addr().String(), "transport", g.cfg.Listeners[i].Transport)
		g.listening.Go(func() { g.mustNotEnd(context.Background(), "listener "+ln.Addr().String(), g.broker.Serve(ln)) })
	}
	return nil
}

func openListener(l configs.Listener, log *slog.Logger) (net.Listener, error) {
	var secure *tls.Config
	if l.Secure() {
		var err error
		secure, err = edge.ServerTLS(edge.TLSFiles{Cert: l.Cert, Key: l.Key, ClientCA: l.ClientCA}, log)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w; see cert, key and client_ca in [[listener]]", l.Address, err)
		}
	}
	if l.Transport == configs.TransportUnix {
		return openUnix(l.Address)
	}
	ln, err := listenOn(l.Interface, l.Address)
	if err != nil && l.Interface != "" {
		return nil, fmt.Errorf("listen on %s over interface %s: %w; ip link shows the interfaces; another broker may be running there, too", l.Address, l.Interface, err)
	} else if err != nil {
		return nil, fmt.Errorf("listen on %s: %w; another broker may be running there: stop it, or choose another address in [[listener]]", l.Address, err)
	}
	if secure != nil {
		ln = tls.NewListener(ln, secure)
	}
	if l.Transport == configs.TransportWS || l.Transport == configs.TransportWSS {
		ln = edge.NewWebSocketListener(ln, strings.Fields(l.Origins))
	}
	return ln, nil
}

// listenOn listens on a TCP address, for what comes over that network interface
// only if it has a name. An interface that goes away and comes back has another
// index, by which the system knows it: the gateway has to be started again then.
func listenOn(iface, address string) (net.Listener, error) {
	var lc net.ListenConfig
	if iface != "" {
		lc.Control = func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) {
				failed = os.NewSyscallError("SO_BINDTODEVICE", unix.BindToDevice(int(fd), iface))
			})
			return errors.Join(err, failed)
		}
	}
	return lc.Listen(context.Background(), "tcp", address)
}

// openUnix opens a unix socket for the user and the group of the gateway. A
// socket that a gateway has left behind in a crash is taken away; one that
// someone answers on is not.
func openUnix(path string) (net.Listener, error) {
	ln, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		nc, dialErr := net.Dial("unix", path)
		if dialErr == nil {
			nc.Close()
		}
		if errors.Is(dialErr, syscall.ECONNREFUSED) && os.Remove(path) == nil {
			ln, err = net.Listen("unix", path)
		}
	}
	if err == nil {
		if err = os.Chmod(path, 0o660); err != nil {
			ln.Close()
		}
	}
	if err != nil {
		return nil, fmt.Errorf("listen on the unix socket %s: %w; choose another path in [[listener]]", path, err)
	}
	return ln, nil
}
