package modem

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"holdfast/modem/at"
)

// qiSockets are the sockets of Quectel firmware, and of Eigencomm firmware with
// Quectel's commands (AT+QI...). Bytes cross the line as they are, counted.
// Access mode 0 is used: what has come stays in the module until it is asked for.
type qiSockets struct {
	m *Modem
	e *at.Engine

	next int // number of the next socket; only with the dialing token held

	// The network has closed the data connection, and the module waits for the host
	// to close it too.
	deactivated atomic.Bool
}

const (
	qiSend    = 1460
	qiRead    = 1500
	qiContext = 1
	qiSockIDs = 6 // EC618 has 12, others fewer
)

func (*qiSockets) name() string { return "qi" }
func (*qiSockets) chunk() int   { return qiSend }

func (c *qiSockets) dial(ctx context.Context, host string, port int) (int, error) {
	if err := c.activate(ctx); err != nil {
		return 0, err
	}
	id, err := c.free()
	if err != nil {
		return 0, err
	}
	// It may be open since an earlier life of this process.
	if err := c.hangUp(ctx, id); err != nil && !at.IsRejection(err) {
		return 0, err
	}
	w := c.e.Expect(func(l at.Line) bool {
		a := at.Args(l.Text)
		return at.Name(l.Text) == "+QIOPEN" && len(a) >= 2 && a[0] == strconv.Itoa(id)
	})
	defer w.Stop()
	_, err = c.e.Do(ctx, at.Command{Text: fmt.Sprintf(`AT+QIOPEN=%d,%d,"TCP","%s",%d,0,0`, qiContext, id, host, port)})
	if err == nil {
		var l at.Line
		begun := time.Now()
		l, err = w.Wait(ctx, c.m.o.Timing.Open)
		switch {
		case errors.Is(err, at.ErrTimeout):
			err = errSilentOpen
		case errors.Is(err, context.DeadlineExceeded) && time.Since(begun) > c.m.o.Timing.Open/3:
			err = fmt.Errorf("%w (it was not waited for any longer: %w)", errSilentOpen, err)
		case err == nil:
			if code := at.Args(l.Text)[1]; code != "0" {
				err = qiError(code)
			}
		}
	}
	if err == nil {
		return id, nil
	}
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.m.o.Timing.Close)
	defer cancel()
	if hangErr := c.hangUp(end, id); hangErr != nil {
		c.m.log.Debug("closing a socket that did not open", "error", hangErr)
	}
	return 0, errDial(host, port, err)
}

// activate makes sure of the data connection. Firmware in which the attach does
// that refuses the command.
func (c *qiSockets) activate(ctx context.Context) error {
	if c.deactivated.Swap(false) {
		if _, err := c.m.wish(ctx, c.e, at.Command{Text: fmt.Sprintf("AT+QIDEACT=%d", qiContext), Timeout: c.m.o.Timing.Radio}); err != nil {
			return err
		}
	}
	r, err := c.m.wish(ctx, c.e, at.Command{Text: "AT+QIACT?", Prefixes: []string{"+QIACT"}})
	if err != nil {
		return err
	}
	for _, line := range r.Lines {
		if a := at.Args(line); len(a) >= 2 && a[0] == strconv.Itoa(qiContext) && a[1] == "1" {
			return nil
		}
	}
	_, err = c.m.wish(ctx, c.e, at.Command{Text: fmt.Sprintf("AT+QIACT=%d", qiContext), Timeout: c.m.o.Timing.Operator})
	return err
}

// free is a number that no socket of ours has; they go round, so that a late word
// about the last one is not taken for one about the next.
func (c *qiSockets) free() (int, error) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	for range qiSockIDs {
		id := c.next
		c.next = (c.next + 1) % qiSockIDs
		if c.m.conns[id] == nil {
			return id, nil
		}
	}
	return 0, fmt.Errorf("all %d sockets of the module are in use; give upstreams a modem each", qiSockIDs)
}

// qiError are the results of QIOPEN that are met.
func qiError(code string) error {
	switch code {
	case "561":
		return errors.New("the data connection could not be opened (561)")
	case "563":
		return errors.New("the socket is in use (563)")
	case "565":
		return fmt.Errorf("%w (565)", errNotFound)
	case "566":
		return errors.New("the far side refused the connection (566)")
	case "569":
		return errors.New("the module ran out of time (569)")
	}
	return errors.New("result " + code)
}

// send hands p over. "SEND FAIL" is a full buffer: nothing was taken. Some
// firmware answers OK, and says with a +QISEND what came of it.
func (c *qiSockets) send(ctx context.Context, s *socket, p []byte) (int, error) {
	_, err := c.e.Do(ctx, at.Command{
		Text: fmt.Sprintf("AT+QISEND=%d,%d", s.id, len(p)), Payload: p,
		Finals: []string{"SEND OK"}, Failures: []string{"SEND FAIL"}, Timeout: c.m.o.Timing.Radio,
	})
	if err == nil {
		return len(p), nil
	}
	return 0, err
}

func (c *qiSockets) receive(ctx context.Context, s *socket, room int) ([]byte, bool, error) {
	room = min(room, qiRead)
	r, err := c.e.Do(ctx, at.Command{
		Text: fmt.Sprintf("AT+QIRD=%d,%d", s.id, room), Prefixes: []string{"+QIRD"},
		Raw: func(line string) int { return qiLength(line) },
	})
	if err != nil {
		return nil, false, err
	}
	if n := qiLength(r.First()); n != len(r.Data) || n > room {
		return nil, false, fmt.Errorf("the module announced %d bytes and gave %d", n, len(r.Data))
	}
	return r.Data, len(r.Data) > 0, nil
}

// qiLength is <n> of "+QIRD: <n>", 0 if there is none.
func qiLength(line string) int {
	a := at.Args(line)
	if len(a) == 0 {
		return 0
	}
	n, err := strconv.Atoi(a[0])
	if err != nil || n < 0 || n > 64<<10 {
		return 0
	}
	return n
}

func (c *qiSockets) hangUp(ctx context.Context, id int) error {
	_, err := c.e.Do(ctx, at.Command{Text: fmt.Sprintf("AT+QICLOSE=%d", id), Finals: []string{"CLOSE OK"}, Timeout: c.m.o.Timing.Radio})
	return err
}

func (c *qiSockets) urc(l at.Line) (id int, ev socketEvent, ok bool) {
	a := at.Args(l.Text)
	switch at.Name(l.Text) {
	case "+QIURC":
		if len(a) < 2 {
			return 0, ev, false
		}
		switch strings.ToLower(a[0]) {
		case "recv":
			ev.readable = true
		case "closed":
			ev.closed = true
		case "pdpdeact": // it is about all of them
			c.deactivated.Store(a[1] == strconv.Itoa(qiContext))
			return 0, ev, false
		default:
			return 0, ev, false
		}
		a = a[1:]
	case "+QISEND": // <id>,<result>[,<bytes>] of firmware that answers OK
		if len(a) < 2 {
			return 0, ev, false
		}
		ev.failed = a[1] != "0"
	default:
		return 0, ev, false
	}
	id, err := strconv.Atoi(a[0])
	return id, ev, err == nil
}
