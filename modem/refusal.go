package modem

import (
	"errors"
	"fmt"

	"holdfast"
)

// RefusedError is a login that the broker has refused (MQTT 3.1.1, 3.2.2.3).
type RefusedError struct {
	// Code is the return code of the CONNACK, 1 to 5 mostly.
	Code int
}

func (e *RefusedError) Error() string {
	r, ok := refusals[e.Code]
	if !ok {
		return fmt.Sprintf("the broker refused the login with code %d, which MQTT 3.1.1 does not know; look into the broker's log", e.Code)
	}
	return fmt.Sprintf("the broker refused the login: %s (%d); %s", r.what, e.Code, r.try)
}

// refusals are the return codes of a CONNACK with what to try. Brokers use 4
// and 5 for the same things, so the advice is the same.
var refusals = map[int]struct{ what, try string }{
	1: {"unacceptable protocol version", "it does not speak MQTT 3.1.1, which is all that this module can; use another upstream"},
	2: {"identifier rejected", "check client_id of [[bridge]]: at most 48 bytes here, and allowed by the broker"},
	3: {"server unavailable", "the broker is up but takes no logins now; it is tried again"},
	4: {"bad user name or password", "check username and password of [[bridge]], and that the client id may connect"},
	5: {"not authorized", "check username and password of [[bridge]], and that the client id may connect"},
}

// UnreachableError is a connection to the broker that did not come about.
type UnreachableError struct {
	// Layer is where it ended, as in Check: "dns" if the module says that the name was
	// not found, else "tcp".
	Layer string
	err   error
}

func (e *UnreachableError) Error() string { return e.err.Error() }
func (e *UnreachableError) Unwrap() error { return e.err }

// errNotFound: the module says that there is no such name.
var errNotFound = errors.New("the name was not found")

// errDial explains a connection that did not come about, for holdfast.ErrUnknown
// is no fate of a dial.
func errDial(host string, port int, err error) error {
	if errors.Is(err, holdfast.ErrClosed) {
		return err
	}
	layer := "tcp"
	if errors.Is(err, errNotFound) {
		layer = "dns"
	}
	return &UnreachableError{layer, fmt.Errorf("the module could not reach %s:%d (%w); check the host name and the port of the url, "+
		"that the SIM has data, and that a firewall or the APN lets it through", host, port, err)}
}

// unanswered explains a publish command whose outcome nobody knows.
func unanswered(err error) error {
	return fmt.Errorf("the module took a publish without an answer: %w", err)
}

// publishResult explains the result of a publish that is not 0.
func publishResult(code string) error {
	switch code {
	case "1":
		return fmt.Errorf("the module could not read the broker's acknowledgement (result 1): %w", holdfast.ErrUnknown)
	case "2":
		return fmt.Errorf("the module could not send: its connection is gone (result 2): %w", holdfast.ErrUnknown)
	}
	return fmt.Errorf("the module reported result %s for a publish: %w", code, holdfast.ErrUnknown)
}

// registrationWords are the values of <stat> in +CEREG (3GPP TS 27.007 10.1.22).
func registrationWords(stat int) string {
	switch stat {
	case 0:
		return "not registered, not searching"
	case 1:
		return "registered, home network"
	case 2:
		return "searching"
	case 3:
		return "denied"
	case 4:
		return "unknown (out of coverage?)"
	case 5:
		return "registered, roaming"
	case 6, 7:
		return "registered for SMS only"
	case 8:
		return "emergency calls only"
	}
	return fmt.Sprintf("state %d", stat)
}

// registrationError explains why there is no registration.
func registrationError(stat int, s Signal) error {
	level := ""
	if s.DBm != 0 {
		level = fmt.Sprintf(" (signal %d dBm)", s.DBm)
	}
	switch stat {
	case 3, 8:
		return fmt.Errorf("the network denied the registration%s; check that the SIM is activated and paid for, "+
			"that it may roam here, that the APN is right, and that this IMEI is not barred", level)
	case 0:
		return fmt.Errorf("the module does not look for a network%s; its radio may be off or the SIM may be unusable", level)
	case 6, 7:
		return fmt.Errorf("the network registered the module for SMS only%s; the SIM needs a contract with LTE data", level)
	}
	return fmt.Errorf("no network was found%s; check the antenna and its plug, the place, and that the operator has LTE here", level)
}
