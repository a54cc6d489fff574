package bridge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// This file puts into words what goes wrong on the way to a far broker, each
// with what to try.

// kickedWithin is how soon after the login a closed connection looks like
// being thrown out.
const kickedWithin = 5 * time.Second

// explainLoss says why a connection has ended that lasted for d.
func explainLoss(err error, d time.Duration) error {
	if errors.Is(err, io.EOF) && d < kickedWithin {
		return fmt.Errorf("%w within %v of the login: does another client use the same client identifier, and may this user publish and subscribe to these topics?",
			err, kickedWithin)
	}
	return err
}

// explainDial says why a far broker cannot be reached.
func explainDial(err error, address string, timeout time.Duration) error {
	host, port, _ := net.SplitHostPort(address)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return fmt.Errorf("the name %q is not known to DNS: check the host in url: %w", host, err)
	case errors.As(err, &dns):
		return fmt.Errorf("DNS does not answer for %q: check that the uplink is up and which name server it uses: %w", host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s refuses connections: is the broker running there, and is %s its port? %w", host, port, err)
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return fmt.Errorf("there is no route to %s: check that the uplink is up: %w", host, err)
	case errors.Is(err, syscall.ENODEV):
		return fmt.Errorf("there is no such interface now: check interface in the upstream, and that its link is up (ip link): %w", err)
	case errors.Is(err, syscall.EPERM):
		return fmt.Errorf("this user may not choose an interface: run the gateway with the capability CAP_NET_RAW: %w", err)
	case isTimeout(err):
		return fmt.Errorf("%s does not answer within %v: check the uplink, the address, and whether a firewall lets port %s through: %w", address, timeout, port, err)
	}
	return fmt.Errorf("connect to %s: %w", address, err)
}

// ErrLoginRefused is in the error of a Connect that the far broker has refused
// with a CONNACK code.
var ErrLoginRefused = errors.New("the broker refuses the login")

// refusedLogin is an ErrLoginRefused with better words.
type refusedLogin struct{ error }

func (e refusedLogin) Unwrap() error        { return e.error }
func (e refusedLogin) Is(target error) bool { return target == ErrLoginRefused }

// explainConnack says why a login was refused (MQTT 3.1.1, 3.2.2.3).
func explainConnack(code byte, clientID, username string) error {
	switch code {
	case 1:
		return errors.New("the broker does not speak MQTT 3.1.1: unacceptable protocol version (1): check that url is that of an MQTT 3.1.1 listener, or write protocol = \"5\"")
	case 2:
		return fmt.Errorf("the broker rejects the client identifier %q: identifier rejected (2): check client_id; some brokers want a fixed one, or at most 23 letters and digits", clientID)
	case 3:
		return errors.New("the broker is there, but its MQTT service is not available: server unavailable (3): it is tried again")
	case 4:
		if username == "" {
			return errors.New("the broker refuses the login: bad user name or password (4): it wants a user: set username and password")
		}
		return fmt.Errorf("the broker refuses the login of user %q: bad user name or password (4): check username and password", username)
	case 5:
		if username == "" {
			return fmt.Errorf("the broker refuses the login of client %q without a user: not authorized (5): set username and password, or permit this client there", clientID)
		}
		return fmt.Errorf("the broker refuses the login of user %q as client %q: not authorized (5): check username, password and client_id, and what the broker permits them", username, clientID)
	}
	return fmt.Errorf("the broker refuses the connection with code %d, which MQTT 3.1.1 does not know: is it an MQTT 5 only broker? Then write protocol = \"5\"", code)
}

// errNoConnack: the connection ended before any answer to CONNECT.
var errNoConnack = errors.New("the broker closes the connection without an answer to the login: is this the port of TLS or of WebSockets, and is the client identifier permitted?")

// explainHandshake says why there was no answer to CONNECT.
func explainHandshake(err error, address string, timeout time.Duration) error {
	switch {
	case errors.Is(err, errNotMQTT):
		return fmt.Errorf("%s: %w", address, err)
	case isTimeout(err):
		return fmt.Errorf("%s accepts the connection but does not answer the login within %v: is it an MQTT broker, and is the link good enough? %w", address, timeout, err)
	case isCut(err):
		return fmt.Errorf("%w: %w", errNoConnack, err)
	}
	return fmt.Errorf("log in at %s: %w", address, err)
}

// isCut reports whether the other side, or the link, has ended a connection.
func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) ||
		errors.As(err, &n) && n.Timeout()
}
