package holdfast

import (
	"errors"
	"fmt"
)

// The errors that callers on the other side of a seam act on. Everything else
// is wrapped around one of them, or is for a person to read.
var (
	// ErrFull: a bound was met and the rule is to refuse. Nothing was stored
	// or delivered; the same message may be offered again later.
	ErrFull = errors.New("queue is full")
	// ErrBusy is an ErrFull that passes by itself: too much waits for the disk,
	// or the disk has no space.
	ErrBusy = fmt.Errorf("%w for the moment", ErrFull)
	// ErrTooLarge: the message can never be stored or sent whole.
	ErrTooLarge = errors.New("message is too large")
	// ErrUnknown: nobody can say whether the far side has the message. It
	// must be sent again.
	ErrUnknown = errors.New("outcome unknown")
	// ErrRefused: the far side has refused this message for good, or the way
	// to it cannot carry it. Sending it again is of no use.
	ErrRefused = errors.New("message refused")
	// ErrClosed: the part was closed.
	ErrClosed = errors.New("closed")
)
