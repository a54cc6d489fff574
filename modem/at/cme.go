package at

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

var (
	// ErrTimeout: the final result did not come in time. What the command did
	// is unknown.
	ErrTimeout = errors.New("no answer in time")
	// ErrUnsynced: the module did not answer AT after a time-out. Nothing that
	// it says can be trusted until it does.
	ErrUnsynced = errors.New("the module does not answer AT")
	// ErrError: the module answered ERROR, without a code.
	ErrError = errors.New("the module answered ERROR")
	// ErrClosed: the engine was closed, or its port has failed.
	ErrClosed = errors.New("the AT port is closed")
)

// TimeoutError is the ErrTimeout of one command.
type TimeoutError struct {
	Command string // its name only; arguments may be secrets
	After   time.Duration
}

func (e *TimeoutError) Error() string {
	return fmt.Sprintf("no answer to %s within %v", e.Command, e.After)
}

// Is makes errors.Is(err, ErrTimeout) true.
func (e *TimeoutError) Is(target error) bool { return target == ErrTimeout }

// interruptedError is the ErrTimeout of a command in whose middle the module has
// restarted: no answer will come, and there is no use in waiting for it.
type interruptedError struct{ command string }

func (e *interruptedError) Error() string {
	return "the module has restarted in the middle of " + e.command
}

func (e *interruptedError) Is(target error) bool { return target == ErrTimeout }

// CMEError is a "+CME ERROR" (3GPP TS 27.007 9.2). Many firmwares answer code 3
// to everything that they do not like.
type CMEError struct {
	Code int // -1 if the module gave words instead of a code (CMEE=2)
	Text string
}

func (e *CMEError) Error() string {
	if e.Code < 0 {
		return "the module answered +CME ERROR: " + e.Text
	}
	if e.Text == "" {
		return fmt.Sprintf("the module answered +CME ERROR: %d", e.Code)
	}
	return fmt.Sprintf("the module answered +CME ERROR: %d (%s)", e.Code, e.Text)
}

// CMSError is a "+CMS ERROR" (3GPP TS 27.005 3.2.5).
type CMSError struct {
	Code int
	Text string
}

func (e *CMSError) Error() string {
	return fmt.Sprintf("the module answered +CMS ERROR: %s", e.Text)
}

// SocketError is the failure of a command for a socket: "+SOCKET ERROR: 3" and
// the like, which Eigencomm firmware gives instead of "+CME ERROR".
type SocketError struct{ Text string }

func (e *SocketError) Error() string { return "the module answered " + e.Text }

// IsRejection reports whether err is the module's own refusal of a command: it
// has answered, and has not done it. Command.Failures are such answers too.
func IsRejection(err error) bool {
	var cme *CMEError
	var cms *CMSError
	var socket *SocketError
	var final *finalFailure
	return errors.Is(err, ErrError) || errors.As(err, &final) || errors.As(err, &cme) || errors.As(err, &cms) || errors.As(err, &socket)
}

// cmeWords are the codes of 3GPP TS 27.007 9.2 that are met in the field.
var cmeWords = map[int]string{
	0:   "phone failure",
	1:   "no connection to phone",
	3:   "operation not allowed",
	4:   "operation not supported",
	5:   "PH-SIM PIN required",
	10:  "SIM not inserted",
	11:  "SIM PIN required",
	12:  "SIM PUK required",
	13:  "SIM failure",
	14:  "SIM busy",
	15:  "SIM wrong",
	16:  "incorrect password",
	17:  "SIM PIN2 required",
	18:  "SIM PUK2 required",
	20:  "memory full",
	21:  "invalid index",
	22:  "not found",
	23:  "memory failure",
	24:  "text string too long",
	25:  "invalid characters in text string",
	26:  "dial string too long",
	27:  "invalid characters in dial string",
	30:  "no network service",
	31:  "network timeout",
	32:  "network not allowed, emergency calls only",
	40:  "network personalization PIN required",
	50:  "incorrect parameters",
	51:  "command implemented but currently disabled",
	52:  "command aborted by user",
	53:  "not attached to network due to MT functionality restrictions",
	54:  "modem not allowed, emergency calls only",
	55:  "operation not allowed because of MT functionality restrictions",
	100: "unknown",
	103: "illegal MS",
	106: "illegal ME",
	107: "GPRS services not allowed",
	111: "PLMN not allowed",
	112: "location area not allowed",
	113: "roaming not allowed in this location area",
	126: "operation temporarily not allowed",
	132: "service option not supported",
	133: "requested service option not subscribed",
	134: "service option temporarily out of order",
	148: "unspecified GPRS error",
	149: "PDP authentication failure",
	150: "invalid mobile class",
}

// finalError parses the error results that every command may end with.
func finalError(line string) (error, bool) {
	if line == "ERROR" {
		return ErrError, true
	}
	if rest, ok := cutFinal(line, "+CME ERROR"); ok {
		code, err := strconv.Atoi(rest)
		if err != nil {
			return &CMEError{Code: -1, Text: rest}, true
		}
		return &CMEError{Code: code, Text: cmeWords[code]}, true
	}
	if rest, ok := cutFinal(line, "+CMS ERROR"); ok {
		code, err := strconv.Atoi(rest)
		if err != nil {
			code = -1
		}
		return &CMSError{Code: code, Text: rest}, true
	}
	for _, name := range []string{"+SOCKET ERROR", "+ECSOC ERROR", "+ECSOCKET ERROR"} {
		if _, ok := cutFinal(line, name); ok {
			return &SocketError{line}, true
		}
	}
	return nil, false
}

func cutFinal(line, name string) (string, bool) {
	rest, ok := strings.CutPrefix(line, name)
	if !ok {
		return "", false
	}
	rest, ok = strings.CutPrefix(strings.TrimLeft(rest, " "), ":")
	return strings.TrimSpace(rest), ok
}

// commandName is the part of a command that may be shown: no arguments.
func commandName(text string) string {
	if i := strings.IndexByte(text, '='); i >= 0 {
		if strings.HasPrefix(text[i:], "=?") {
			return text
		}
		return text[:i]
	}
	return text
}
