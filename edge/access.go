package edge

import (
	"net"
	"net/netip"
)

// Anonymous says whom a broker without users lets in.
type Anonymous string

// The values of access.anonymous.
const (
	AnonymousNever    Anonymous = "never"
	AnonymousLoopback Anonymous = "loopback"
	AnonymousAlways   Anonymous = "always"
)

// remoteUnix is the address of a client on a unix socket.
const remoteUnix = "unix socket"

// Connect lets a client in by where it comes from; name and password are not looked at.
func (a Anonymous) Connect(_, _ string, _ []byte, remote string) bool {
	switch a {
	case AnonymousAlways:
		return true
	case AnonymousLoopback:
		if remote == remoteUnix {
			return true
		}
		host, _, err := net.SplitHostPort(remote)
		if err != nil {
			return false
		}
		addr, err := netip.ParseAddr(host)
		return err == nil && addr.Unmap().IsLoopback()
	}
	return false
}

// Publish allows every topic to those who were let in.
func (a Anonymous) Publish(_, _, _ string) bool { return true }

// Subscribe allows every filter to those who were let in.
func (a Anonymous) Subscribe(_, _, _ string) bool { return true }
