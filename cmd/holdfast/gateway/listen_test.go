package gateway

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/configs"
)

func TestAListenerOnAnInterfaceIsForWhatComesOverIt(t *testing.T) {
	open := func(iface string) (net.Listener, error) {
		return openListener(configs.Listener{Address: "127.0.0.1:0", Transport: configs.TransportTCP, Interface: iface}, slog.New(slog.DiscardHandler))
	}
	ln, err := open("lo")
	if errors.Is(err, os.ErrPermission) {
		t.Skip("this system does not let us")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	raw, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	bound := ""
	if e := raw.Control(func(fd uintptr) { bound, err = unix.GetsockoptString(int(fd), unix.SOL_SOCKET, unix.SO_BINDTODEVICE) }); e != nil || err != nil || bound != "lo" {
		t.Errorf("the socket is bound to %q, %v %v", bound, e, err)
	}
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if _, err := open("none0"); !errors.Is(err, syscall.ENODEV) || !strings.Contains(err.Error(), "over interface none0") {
		t.Error(err)
	}
}
